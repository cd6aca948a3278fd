"""One pass over a data set, or over as many of its shards as a person waits for: totals and distributions."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...schemas.manifest import Seal, ShardCommit
from ...schemas.report import REPORT_VERSION, Histogram, Provenance, Quarantined, ReportData, Shift
from ...stages.statistics import border_sides, coverage, mean_cosine, overlap, rles
from ...store.check_rows import boxes_of
from ...store.damage import DamageError
from ...store.dataset import Dataset
from ...store.seals import Sum, read_entry
from ..journal import read_journal

READ_SHARDS = 100  # with their masks; more say nothing new
MEASURED_IMAGES = 4000  # whose masks are compared with each other
VECTOR_SHARDS = 8  # whose vectors are read: hundreds of megabytes each
LISTED = 1000  # quarantined images by name
HEAT = 24  # cells of the heat map along a side
MAX_SHIFTS = 5000


@dataclass(slots=True)
class Tally:
    """A histogram that grows."""

    title: str
    unit: str
    edges: npt.NDArray[np.floating[Any]]
    log: bool = False
    counts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.edges) - 1, np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count values; those beyond the ends go to the outermost bins."""
        if len(values):
            places = np.searchsorted(self.edges, values, side="right") - 1
            self.counts += np.bincount(places.clip(0, len(self.counts) - 1), minlength=len(self.counts))

    def result(self) -> Histogram:
        """As a document."""
        return Histogram(
            title=self.title,
            unit=self.unit,
            edges=tuple(map(float, self.edges)),
            counts=tuple(map(int, self.counts)),
            log=self.log,
        )


def _tallies() -> dict[str, Tally]:
    return {
        "masks_per_image": Tally("Masks per image", "masks", np.arange(102) - 0.5),
        "score": Tally("Score", "after NMS", np.linspace(0, 1, 51)),
        "area": Tally("Area", "share of the image", np.geomspace(1e-5, 1, 51), log=True),
        "aspect": Tally("Aspect", "width / height of the box", np.geomspace(1 / 16, 16, 49), log=True),
        "border": Tally("Border contact", "sides of the image touched", np.arange(6) - 0.5),
        "overlap": Tally("Overlap", "largest IoU with a better mask", np.linspace(0, 1, 51)),
        "coverage": Tally("Coverage", "share of the image in some mask", np.linspace(0, 1, 51)),
        "scale": Tally("Seed scale", "index into saliency.scales", np.arange(9) - 0.5),
        "norm": Tally("Length of box_mean vectors", "", np.geomspace(1e-2, 1e3, 51), log=True),
    }


def collect(dataset: Dataset, seed: int = 0) -> ReportData:
    """Read up to READ_SHARDS shards drawn by `seed`, and every commit. Damaged shards are named and left out."""
    generations = dataset.generations()
    rng = np.random.default_rng(seed)
    present = np.flatnonzero(generations >= 0)
    chosen = set(map(int, rng.choice(present, min(READ_SHARDS, len(present)), replace=False)))
    with_vectors = set(sorted(chosen)[:VECTOR_SHARDS])
    gather = _Gather(max(1, MEASURED_IMAGES // max(1, len(chosen))), rng)
    totals = Sum()
    shifts: list[tuple[ShardCommit, str]] = []
    versions: set[str] = set()
    damaged: list[str] = []
    workers = _workers(dataset)
    for commit in _commits(dataset, generations, damaged):
        totals.add(commit)
        versions.add(commit.info.code_version)
        if len(shifts) < MAX_SHIFTS:
            shifts.append((commit, workers.by_shard.get(commit.shard_id, commit.info.host)))
        if commit.shard_id in chosen:
            try:
                gather.add(dataset, commit, vectors=commit.shard_id in with_vectors)
            except DamageError as error:
                damaged.append(str(error))
    card = dataset.card
    sealed = None if damaged else _sealed(dataset, totals, damaged)
    return ReportData(
        report_version=REPORT_VERSION,
        provenance=Provenance(
            url=dataset.url,
            root_hash=sealed.root_hash if sealed else None,
            code_versions=tuple(sorted(versions)),
            **card.model_dump(
                include={
                    "fingerprint",
                    "created_by",
                    "weights_name",
                    "weights_sha256",
                    "source",
                    "device",
                    "config",
                    "producer",
                }
            ),
            parents=card.parents,
        ),
        n_images=card.n_images,
        n_shards=card.n_shards,
        shards_committed=len(present),
        totals=totals.counts,
        shards_read=gather.shards,
        images_read=gather.images,
        images_measured=gather.measured,
        reasons=dict(gather.reasons.most_common()),
        quarantined=tuple(gather.quarantined),
        histograms={name: tally.result() for name, tally in gather.tallies.items()},
        numbers=gather.numbers(),
        heat=tuple(tuple(map(float, row)) for row in gather.heat / max(1, gather.heat.sum())),
        steps=workers.steps,
        shifts=_shifts(shifts),
        damaged=tuple(damaged[:LISTED]),
    )


def _sealed(dataset: Dataset, totals: Sum, damaged: list[str]) -> Seal | None:
    """The seal, if the commits are what was sealed; else what is wrong is noted."""
    try:
        entry = read_entry(dataset.store)
    except DamageError as error:
        damaged.append(str(error))
        return None
    if entry is None or entry.seal is None:
        return None
    if trouble := dataset.disagreement(entry, totals):
        damaged.append(f"The seal of {dataset.url} {trouble}: run `generate` again.")
        return None
    return entry.seal


def _commits(dataset: Dataset, generations: Any, damaged: list[str]) -> Iterator[ShardCommit]:
    """All commits; if one is damaged, one after another, so that it costs itself alone."""
    done = 0
    try:
        for commit in dataset.commits(generations):
            yield commit
            done += 1
    except DamageError:
        for shard in np.flatnonzero(generations >= 0)[done:]:
            try:
                yield dataset.read_commit(int(shard), int(generations[shard]))
            except DamageError as error:
                damaged.append(str(error))


class _Gather:
    """The distributions."""

    def __init__(self, measured_per_shard: int, rng: np.random.Generator) -> None:
        self.tallies = _tallies()
        self.heat = np.zeros((HEAT, HEAT), np.int64)
        self.reasons: Counter[str] = Counter()
        self.quarantined: list[Quarantined] = []
        self.shards = self.images = self.measured = 0
        self._per_shard = measured_per_shard
        self._rng = rng
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._numbers: Counter[str] = Counter()
        self._cosines: list[float] = []

    def add(self, dataset: Dataset, commit: ShardCommit, *, vectors: bool) -> None:
        """Count one shard."""
        tables = dataset.read_shard(commit, vectors=vectors)
        images, masks = tables.images, tables.masks
        self.shards += 1
        self.images += len(images)
        usable = images.filter(pc.not_equal(images["status"], "quarantined"))
        self.tallies["masks_per_image"].add(usable["n_masks"].to_numpy())
        for row in images.filter(pc.equal(images["status"], "quarantined")).to_pylist():
            self.reasons[row["reason"]] += 1
            if len(self.quarantined) < LISTED:
                self.quarantined.append(
                    Quarantined(file_name=row["file_name"], reason=row["reason"], error=row["error"] or "")
                )
        if len(masks):
            self._masks(masks)
        self._measure(usable, masks)
        if len(masks):
            self._vectors(tables.vectors)

    def numbers(self) -> dict[str, float | None]:
        """Means over what was counted, None where there was nothing."""
        cosine = float(np.nanmean(self._cosines)) if self._cosines and not np.all(np.isnan(self._cosines)) else None
        means = {name: self._sums[name] / count for name, count in self._numbers.items() if count}
        names = ("masks_per_image", "score", "area", "border_contact", "overlap", "coverage")
        return {name: means.get(name) for name in names} | {"mean_pairwise_cosine": cosine}

    def _mean(self, name: str, values: npt.NDArray[Any]) -> None:
        self._sums[name] += float(np.sum(values))
        self._numbers[name] += len(values)

    def _masks(self, masks: pa.Table) -> None:
        boxes_n4 = boxes_of(masks)
        heights, widths = masks["height"].to_numpy(), masks["width"].to_numpy()
        area = masks["area"].to_numpy() / (heights.astype(np.float64) * widths)
        score = masks["score"].to_numpy()
        sides = border_sides(boxes_n4, widths, heights)
        self.tallies["score"].add(score)
        self.tallies["area"].add(area)
        self.tallies["aspect"].add(boxes_n4[:, 2] / boxes_n4[:, 3].clip(1))
        self.tallies["border"].add(sides)
        if "seed_scale" in masks.column_names:
            self.tallies["scale"].add(masks["seed_scale"].to_numpy())
        self._mean("score", score)
        self._mean("area", area)
        self._mean("border_contact", sides > 0)
        x = ((boxes_n4[:, 0] + boxes_n4[:, 2] / 2) / widths * HEAT).astype(int).clip(0, HEAT - 1)
        y = ((boxes_n4[:, 1] + boxes_n4[:, 3] / 2) / heights * HEAT).astype(int).clip(0, HEAT - 1)
        np.add.at(self.heat, (y, x), 1)

    def _measure(self, images: pa.Table, masks: pa.Table) -> None:
        self._mean("masks_per_image", images["n_masks"].to_numpy())
        picked = self._rng.permutation(len(images))[: self._per_shard]
        for row in images.take(pa.array(np.sort(picked))).to_pylist():
            counts = masks["counts"].slice(row["first_mask"], row["n_masks"]).to_pylist()
            coded = rles(counts, row["height"], row["width"])
            found, covered = overlap(coded), np.array([coverage(coded)])
            self.tallies["overlap"].add(found)
            self.tallies["coverage"].add(covered)
            self._mean("overlap", found)
            self._mean("coverage", covered)
            self.measured += 1

    def _vectors(self, vectors: Mapping[str, npt.NDArray[np.float16]]) -> None:
        if "box_mean" in vectors:
            self.tallies["norm"].add(np.linalg.norm(vectors["box_mean"][:4096].astype(np.float32), axis=1))
        if "seed" in vectors:
            self._cosines.append(mean_cosine(vectors["seed"][:4096]))


@dataclass(frozen=True, slots=True)
class _Workers:
    by_shard: dict[int, str]
    steps: dict[str, float]


def _workers(dataset: Dataset) -> _Workers:
    """Who made which shard, and thread seconds by step, as the journals tell."""
    by_shard: dict[int, str] = {}
    steps: defaultdict[str, float] = defaultdict(float)
    for event in read_journal(dataset):
        if event["event"] != "shard_committed":
            continue
        if "pid" in event:
            by_shard[event["shard"]] = f"{event.get('host')}:{event['pid']}"
        for step, seconds in event.get("steps", {}).items():
            steps[step] += seconds
    return _Workers(by_shard, {step: round(seconds, 3) for step, seconds in steps.items()})


def _shifts(commits: list[tuple[ShardCommit, str]]) -> tuple[Shift, ...]:
    if not commits:
        return ()
    first = min(commit.info.started for commit, _ in commits)
    found = [
        Shift(
            shard=commit.shard_id,
            worker=worker,
            start=round(commit.info.started - first, 3),
            end=round(commit.info.started - first + commit.info.seconds, 3),
            images=commit.counts.images,
        )
        for commit, worker in commits
    ]
    return tuple(sorted(found, key=lambda shift: shift.start if math.isfinite(shift.start) else 0.0))
