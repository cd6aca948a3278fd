"""Mutates a data set and its photographs at random and reads it: the same data, or one error that names a file.

    python benchmarks/fuzz.py [--seconds 600] [--seed 0] [--json F]

Every round changes one file: card, seal, digests, commit, plan, table, array or photograph, by flips, cuts, noise, or
a value of its JSON; half of the changed shard files are then signed anew, commit and seal with them, as one would who
means harm. What was signed anew may read as other data; anything else must read as before, or not at all. Rounds run
in a process of their own: one that crashes it, hangs for a minute, needs more than 12 GB or raises anything but a
UserError breaks the promise, and is listed with its number, by which `--only` repeats it.
"""

import argparse
import json
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PATIENCE = 60.0  # seconds for a round
MEMORY = 12 << 30  # bytes of address space of the process that reads
NAMES = (".json", ".parquet", ".zarr", ".jpg", "seals")  # a file, in the words of an error
TARGETS = {
    "card": "dataset.json",
    "seal": "seals/*.json",
    "copy of the seal": "sealed.json",
    "digests": "plan/*/digests.json",
    "plan": "plan/*/*.parquet",
    "commit": "commits/**/*.json",
    "table": "shards/**/*.parquet",
    "array": "shards/**/*.zarr/**/c/**/*",
    "description": "shards/**/zarr.json",
    "journal": "runs/*.jsonl",
    "photograph": "../photos/*",
}
HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    1e308,
    "",
    "../../x",
    "/etc/passwd",
    "x" * 100_000,
    [],
    {},
    [[]],
    {"a": {}},
]
RUN = [
    "features.weights=lab-color",
    "decode.short_side=96",
    "decode.long_side=192",
    "plan.shard_size=3",
    "features.batch_size=2",
    "filters.min_score=0",
    "encode.saliency=true",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat this round alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        read_rounds(options.child, options.seed)
    elif options.only is not None:
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            print(json.dumps(Fuzzer(make_world(Path(folder))).round(options.only), indent=2))
    else:
        drive(options.seconds, options.seed, options.json)


def drive(seconds: float, seed: int, out: Path | None) -> None:
    """Start a reading process, and another whenever one is lost, until the time is over."""
    start, broken = time.monotonic(), []
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    slowest, rounds, losses = 0.0, seed, 0
    while time.monotonic() - start < seconds:
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            child = Child(Path(folder), rounds)
            while (left := seconds - (time.monotonic() - start)) > 0:
                told = child.listen(min(PATIENCE, max(left, 1.0)))
                if told is None:
                    if seconds - (time.monotonic() - start) > 0:
                        losses += 1
                        rounds += 1
                        broken.append({"round": rounds - 1, "what": f"the process was lost: {child.end()}"})
                    break
                outcomes[told["target"]][told["outcome"]] += 1
                slowest, rounds = max(slowest, told["seconds"]), told["round"] + 1
                if told["outcome"] == "broken":
                    broken.append(told)
            child.end()
    import torch
    from environment import describe

    result = {
        "benchmark": "fuzz",
        "seconds": round(time.monotonic() - start),
        "rounds": rounds - seed,
        "outcomes": {target: dict(counts) for target, counts in sorted(outcomes.items())},
        "slowest_round_s": round(slowest, 2),
        "processes_lost": losses,
        "promise_broken": broken,
        "environment": describe(torch.device("cpu")),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if out:
        out.write_text(text + "\n")
    sys.exit(1 if broken else 0)


class Child:
    """A process that reads, and what it tells."""

    def __init__(self, folder: Path, first: int) -> None:
        command = [sys.executable, __file__, "--child", str(folder), "--seed", str(first)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._hear, daemon=True).start()
        assert self._lines.get(timeout=300) == "ready\n", "the data set to mutate could not be made"

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def listen(self, seconds: float) -> dict[str, Any] | None:
        """What became of the next round; None if the process ended or says nothing for so long."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return None
        return json.loads(line) if line else None

    def end(self) -> str:
        """End it; how it had ended before."""
        code = self._process.poll()
        self._process.kill()
        self._process.wait()
        return "it hung" if code is None else f"exit status {code}"


def read_rounds(folder: Path, first: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    fuzzer = Fuzzer(make_world(folder))
    print("ready", flush=True)
    number = first
    while True:
        print(json.dumps(fuzzer.round(number)), flush=True)
        number += 1


def make_world(folder: Path) -> Path:
    """Seven photographs, one of them none, and their data set."""
    import torch

    from corpus import write_photos
    from saliency_prompt.pipeline.generate import Job, generate
    from saliency_prompt.pipeline.sources import open_source
    from saliency_prompt.schemas.load import load_config

    write_photos(folder / "photos", 6, height=48, width=64)
    (folder / "photos" / "zz.jpg").write_bytes(b"\xff\xd8")
    job = Job(str(folder / "data"), load_config(overrides=RUN), torch.device("cpu"))
    generate(open_source(str(folder / "photos")), job, Silent(), threading.Event())
    return folder / "data"


class Silent:
    """A reporter that says nothing."""

    def planned(self, planned: Any, shards: int) -> None:
        """Nothing."""

    def running(self, meter: Any) -> None:
        """Nothing."""

    def committed(self, report: Any) -> None:
        """Nothing."""


class Fuzzer:
    """Mutates and reads one data set, and puts it right again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = path.with_name("kept")
        shutil.copytree(path.parent, self._kept, ignore=shutil.ignore_patterns("kept"))
        self._expected = {name: read(str(path), path.parent / "out") for name, read in READERS.items()}

    def round(self, number: int) -> dict[str, Any]:
        """One change, one reader; what came of it."""
        from saliency_prompt.schemas.errors import UserError

        dice = random.Random(number)
        target = dice.choice(list(TARGETS))
        file = dice.choice(sorted(path for path in self.path.glob(TARGETS[target]) if path.is_file()))
        before = file.read_bytes()
        mutate(file, dice)
        forged = target in ("table", "array", "description") and dice.random() < 0.5
        if forged:
            forge(self.path, file)
        reader = dice.choice(list(READERS))
        told: dict[str, Any] = {"round": number, "target": target, "reader": reader, "forged": forged}
        told["file"] = str(file.relative_to(self.path.parent))
        start = time.monotonic()
        try:
            found = READERS[reader](str(self.path), self.path.parent / "out")
        except UserError as error:
            named = any(name in str(error) for name in NAMES)
            told |= {"outcome": "refused" if named else "broken", "what": str(error)[:300]}
        except BaseException as error:
            told |= {"outcome": "broken", "what": f"{type(error).__name__}: {error}"[:300]}
        else:
            same = found == self._expected[reader] or found in TOLD
            told["outcome"] = "told" if found in TOLD else "same" if same else "other data" if forged else "broken"
            if told["outcome"] == "broken":
                told["what"] = "other data without a word"
        told["seconds"] = round(time.monotonic() - start, 3)
        if forged:
            shutil.rmtree(self.path)
            shutil.copytree(self._kept / "data", self.path)
        else:
            file.write_bytes(before)
        return told


def mutate(file: Path, dice: random.Random) -> None:
    data = file.read_bytes()
    place = dice.randrange(len(data) + 1)
    length = min(dice.choice((1, 4, 64, 1024)), len(data) - place)
    kinds: list[Callable[[], bytes | None]] = [
        lambda: flip(data, dice, 1),
        lambda: flip(data, dice, 1),
        lambda: flip(data, dice, 20),
        lambda: data[:place],
        lambda: data + dice.randbytes(dice.choice((1, 100))),
        lambda: data[:place] + bytes(length) + data[place + length :],
        lambda: data[:place] + dice.randbytes(length) + data[place + length :],
        lambda: data[:place] + data[place + length :],
        lambda: data[:place] + data[place : place + length] + data[place:],
        lambda: b"",
        lambda: None,
    ]
    if file.suffix == ".json" and dice.random() < 0.6:
        kinds = [lambda: change_value(data, dice)]
    changed = dice.choice(kinds)()
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)


def flip(data: bytes, dice: random.Random, bits: int) -> bytes:
    changed = bytearray(data)
    for _ in range(bits if data else 0):
        bit = dice.randrange(8 * len(data))
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def change_value(data: bytes, dice: random.Random) -> bytes:
    """A value anywhere in a document becomes another, is dropped, or goes very deep."""
    content = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(content)
    if not places:
        return b"[" * 50_000
    inner, key = dice.choice(places)
    if dice.random() < 0.1:
        del inner[key]
    elif dice.random() < 0.05:
        inner[key] = "@"
        return json.dumps(content).encode().replace(b'"@"', b"[" * 20_000 + b"]" * 20_000)
    else:
        value = inner[key]
        near = [value + 1, -value] if type(value) in (int, float) else [value[::-1]] if isinstance(value, str) else []
        inner[key] = dice.choice([*HOSTILE, *near, *near, *near])
    return json.dumps(content).encode()


def forge(path: Path, file: Path) -> None:
    """Have commit and seal name the file as it is now."""
    from saliency_prompt.schemas.manifest import ShardCommit
    from saliency_prompt.store.dataset import Dataset
    from saliency_prompt.store.shard import content_hash, file_entries

    for document in path.glob("commits/**/*.json"):
        commit = ShardCommit.model_validate_json(document.read_bytes())
        folder = next(path.glob(f"shards/*/*/{commit.attempt}"), None)
        if folder is None or folder not in file.parents:
            continue
        there = {name: folder / name for name in commit.files}
        entries = file_entries({name: place.read_bytes() for name, place in there.items() if place.exists()})
        if not {"images.parquet", "masks.parquet"} <= entries.keys():
            continue
        update = {"files": entries, "content_hash": content_hash(entries)}
        document.write_bytes(commit.model_copy(update=update).to_json())
    dataset = Dataset.open(str(path))
    dataset.seal()


TOLD = ("problems were told", "damage was told")


def read_train(url: str, out: Path) -> object:
    from saliency_prompt import PseudoLabelDataset

    del out
    data = PseudoLabelDataset(url, vectors=("seed", "box_mean"))
    found = []
    for i in range(len(data)):
        image, target = data[i]
        parts = [image, target["masks"], target["boxes"], target["scores"], *target["vectors"].values()]
        found.append((target["image_id"], [part.numpy().tobytes() for part in parts]))
    return found


def read_export(url: str, out: Path) -> object:
    from saliency_prompt.pipeline.export.coco import export_coco
    from saliency_prompt.store.dataset import Dataset

    export_coco(Dataset.open(url), str(out / "coco.json"))
    return (out / "coco.json").read_bytes()


def read_show(url: str, out: Path) -> object:
    from saliency_prompt.pipeline.show import draw_dataset
    from saliency_prompt.store.dataset import Dataset

    drawn = {path.name: path.read_bytes() for path in draw_dataset(Dataset.open(url), str(out / "show"), limit=9)}
    return drawn if len(drawn) == 6 else TOLD[1]  # photographs that changed are left out


def read_report(url: str, out: Path) -> object:
    from saliency_prompt.pipeline.report.collect import collect
    from saliency_prompt.pipeline.report.gallery import describe_masks, write_photographs
    from saliency_prompt.pipeline.report.sample import sample_images
    from saliency_prompt.pipeline.show import Drawing
    from saliency_prompt.store.dataset import Dataset

    dataset = Dataset.open(url)
    data = collect(dataset)
    if data.damaged:
        return TOLD[1]
    drawing = Drawing.of(dataset)
    samples = sample_images(dataset, 9)
    troubles = write_photographs(samples, dataset.card.source, drawing.decode, out / "images", 64)
    if len(samples) < 7 or sum(map(bool, troubles)) > 1:
        return TOLD[1]
    told = data.model_dump(include={"totals", "numbers", "reasons", "quarantined", "heat"})
    return told, [describe_masks(sampled, drawing) for sampled in samples]


def read_verify(url: str, out: Path) -> object:
    from saliency_prompt.store.check import verify
    from saliency_prompt.store.dataset import Dataset

    del out
    return TOLD[0] if verify(Dataset.open(url)).problems else "no problem"


def read_status(url: str, out: Path) -> object:
    from saliency_prompt.pipeline.runs import runs
    from saliency_prompt.pipeline.status import quarantined_images, status
    from saliency_prompt.store.dataset import Dataset

    del out
    dataset = Dataset.open(url)
    now = status(dataset)
    runs(dataset)
    return TOLD[1] if now.trouble or now.shards_done < 3 else (now.counts, quarantined_images(dataset, 9))


READERS: dict[str, Callable[[str, Path], object]] = {
    "train": read_train,
    "export": read_export,
    "show": read_show,
    "report": read_report,
    "verify": read_verify,
    "status": read_status,
}

if __name__ == "__main__":
    main()
