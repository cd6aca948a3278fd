"""Looking over a data set: `verify` reads everything again, `gc` removes what no commit names."""

import os
import re
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np

from ..schemas.errors import UserError
from ..schemas.manifest import DatasetCard, fingerprint
from ..schemas.records import ImageRef
from ..schemas.registry import PRODUCERS, parse_label_config
from ..schemas.section import identity
from .check_shard import Problem, ShardFindings, check_shard
from .damage import DamageError
from .dataset import Dataset, Generations
from .inputs import InputsReader, update_digest
from .layout import CARD, COMMITS, PLAN, SEAL, SEALS, SHARDS, commit_key, parse_attempt, parse_commit_key
from .objects import ObjectInfo
from .provenance import check_plan
from .seals import Sum, read_copy, read_entry
from .shard import lost_files

WORKERS = 4  # hashing releases the GIL
GRACE_SECONDS = 7 * 86400.0  # of gc: longer than a machine is suspended, or a job is stopped, over a weekend
_STAGED = re.compile(r"(#\d+|\.[0-9a-f]{32}\.partial)$")


@dataclass(slots=True)
class VerifyReport:
    """What `verify` read and what it found wrong."""

    problems: list[Problem] = field(default_factory=list)
    shards: int = 0
    files: int = 0
    bytes: int = 0

    @property
    def summary(self) -> str:
        """One line."""
        found = f"{len(self.problems)} problems" if self.problems else "no problem"
        return f"{found} in {self.shards:,} shards, {self.files:,} files, {self.bytes / 1e6:,.1f} MB"


@dataclass(frozen=True, slots=True)
class GcReport:
    """What `gc` removed, or would remove."""

    files: int
    bytes: int


def check_fingerprint(card: DatasetCard) -> Iterator[str]:
    """What is wrong with a card's fingerprint."""
    try:
        config = parse_label_config(card.producer, card.config)
    except UserError:
        if card.producer in PRODUCERS:  # of one that this program does not know the seal's digest of the card must do
            yield "its configuration is none of its producer's, nor is its fingerprint"
        return
    if fingerprint(identity(config), card.weights_sha256, card.parent, card.derivation) != card.fingerprint:
        yield "its fingerprint is not that of its configuration and weights"


def verify(dataset: Dataset) -> VerifyReport:
    """Read and hash every committed file again, and compare card, plan, rows, masks, commits and seal with each other.

    Damage to the data is reported, never raised. Raises UserError only if the store cannot be used at all.
    """
    report, digest, n_images, total = VerifyReport(), sha256(), 0, Sum()
    generations = dataset.generations()
    card = dataset.card
    plan = InputsReader(
        dataset.store, card.plan, card.n_images, card.shard_size
    )  # its own: the data set's remembers what it read
    report.problems += (Problem(None, key, sentence) for key, sentence in check_plan(dataset.store, card))
    report.problems += (Problem(None, CARD, sentence) for sentence in check_fingerprint(card))
    with ThreadPoolExecutor(WORKERS, "verify") as pool:
        running: deque[Future[ShardFindings]] = deque()

        def collect(at_most: int) -> None:
            while len(running) > at_most:
                found = running.popleft().result()
                report.problems += found.problems
                report.files += found.files
                report.bytes += found.bytes
                report.shards += 1
                if found.commit:
                    total.add(found.commit)

        for shard_id, generation in enumerate(generations.tolist()):
            refs = _planned(plan, shard_id, report)
            update_digest(digest, refs or [])
            n_images += len(refs or [])
            if generation >= 0:
                running.append(pool.submit(check_shard, dataset, shard_id, generation, refs))
            collect(2 * WORKERS)
        collect(0)
    if (digest.hexdigest(), n_images) != (card.inputs_sha256, card.n_images):
        report.problems.append(Problem(None, PLAN, f"the planned images are not those that {CARD} was made for"))
    missing = np.flatnonzero(generations < 0)
    if len(missing):
        sentence = f"{len(missing):,} of {card.n_shards:,} shards are not computed yet: run `generate` again"
        report.problems.append(Problem(int(missing[0]), commit_key(int(missing[0])), sentence))
    _check_seal(dataset, report, total, complete=not len(missing))
    return report


def _planned(plan: InputsReader, shard_id: int, report: VerifyReport) -> list[ImageRef] | None:
    try:
        return plan.read(shard_id)
    except DamageError as error:
        report.problems.append(Problem(shard_id, PLAN, f"its planned images: the plan {error.trouble}"))
        return None


def _check_seal(dataset: Dataset, report: VerifyReport, total: Sum, *, complete: bool) -> None:
    try:
        entry = read_entry(dataset.store)
        copy = read_copy(dataset.store)
    except DamageError as error:
        report.problems.append(Problem(None, error.file or SEAL, error.trouble))
        return
    if entry is None or entry.seal is None:
        if copy is not None:
            report.problems.append(Problem(None, SEAL, "it is there although the data set is open"))
        return
    if not complete:
        report.problems.append(Problem(None, SEAL, "the data set is sealed although shards are missing"))
    elif trouble := dataset.disagreement(entry, total):
        report.problems.append(Problem(None, SEAL, f"it {trouble}: run `generate` again"))
    if copy != entry.seal:
        report.problems.append(Problem(None, SEAL, "it is not a copy of the newest seal: run `generate` again"))


def gc(dataset: Dataset, *, grace_seconds: float = GRACE_SECONDS, dry_run: bool = False) -> GcReport:
    """Remove what neither card nor current commit names, superseded commits and, on a local disk, half-written files.

    What is younger than `grace_seconds` stays, since a worker may be about to commit it; so does what was superseded
    later than that, since a reader may be at it. The grace should exceed the time from a worker's first file to its
    commit: no store can delete a file on condition that no commit appears. A worker that is later than that looks
    after its files once it has committed them, and `gc` looks for its commit after it has removed them: of the two,
    whoever looks last repairs it. Raises UserError, having removed nothing, if a commit cannot be read: what it names
    is then unknown.
    """
    cutoff = time.time() - grace_seconds
    before = dataset.generations()
    old_commits, fresh = _superseded(dataset, before, cutoff)
    live = np.full(dataset.card.n_shards, b"", "S32")  # attempts by shard: 64 MB for two million
    for commit in dataset.commits():
        live[commit.shard_id] = commit.attempt.encode()
    orphans: list[tuple[int, ObjectInfo]] = []
    for info in dataset.store.list(SHARDS):
        parsed = parse_attempt(info.key)
        if parsed is None or info.modified.timestamp() > cutoff or parsed[0] in fresh:
            continue
        shard_id, attempt = parsed
        if shard_id >= len(live) or live[shard_id] != attempt.encode():
            orphans.append((shard_id, info))
    # Workers went on meanwhile: leave the shards that were committed since the first look.
    after = dataset.generations()
    committed = set(np.flatnonzero(after != before).tolist())
    plans = [i for i in dataset.store.list(PLAN) if f"/{dataset.card.plan}/" not in i.key]
    garbage = old_commits + [i for i in plans if i.modified.timestamp() <= cutoff]
    garbage += [info for shard_id, info in orphans if shard_id not in committed]
    root = dataset.store.local_root()
    staged = list(_staged(root, cutoff)) if root else []
    report = GcReport(len(garbage) + len(staged), sum(i.size for i in garbage) + sum(size for _, size in staged))
    if not dry_run:
        dataset.store.delete(info.key for info in garbage)
        _retract_late(dataset, after)
        for path, _ in staged:
            path.unlink(missing_ok=True)
        if root:
            for top in (SHARDS, PLAN):
                _remove_empty_folders(root / top)
    return report


def _retract_late(dataset: Dataset, before: Generations) -> None:
    """Take back commits that came while files were removed, if theirs were among them."""
    now = dataset.generations()
    for shard_id in np.flatnonzero(now != before).tolist():
        with suppress(DamageError):  # gone again
            commit = dataset.read_commit(shard_id, int(now[shard_id]))
            if lost_files(dataset.store, commit):
                dataset.store.delete([commit_key(shard_id, commit.generation)])


def _superseded(dataset: Dataset, generations: Generations, cutoff: float) -> tuple[list[ObjectInfo], set[int]]:
    """Commits that were superseded before the cutoff, and the shards in which one was superseded after it."""
    old: list[tuple[int, ObjectInfo]] = []
    fresh: set[int] = set()
    for info in dataset.store.list(COMMITS):
        parsed = parse_commit_key(info.key)
        if parsed is None or parsed[0] >= len(generations):
            continue
        shard_id, generation = parsed
        if generation < generations[shard_id]:
            old.append((shard_id, info))
        elif generation and info.modified.timestamp() > cutoff:
            fresh.add(shard_id)
    return [info for shard_id, info in old if shard_id not in fresh], fresh


def _staged(root: Path, cutoff: float) -> Iterator[tuple[Path, int]]:
    """Half-written local files, which the store does not list: what a killed writer leaves behind."""
    own = (root / name for name in os.listdir(root) if name.startswith((CARD, SEAL)))
    below = (Path(d, f) for top in (PLAN, COMMITS, SHARDS, SEALS) for d, _, files in os.walk(root / top) for f in files)
    for path in chain(own, below):
        if _STAGED.search(path.name):
            with suppress(FileNotFoundError):  # its writer has just finished
                info = path.stat()
                if info.st_mtime <= cutoff:
                    yield path, info.st_size


def _remove_empty_folders(top: Path) -> None:
    for folder, _, files in os.walk(top, topdown=False):
        if not files:
            with suppress(OSError):  # not empty: it has folders, or a worker has just begun to write
                Path(folder).rmdir()
