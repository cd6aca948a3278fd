"""What a data set holds, read from its commits alone: works on a running, dead or finished job."""

from collections import Counter
from dataclasses import dataclass

from ..schemas.manifest import ShardCounts
from ..store.dataset import Dataset
from ..store.seals import Sum, read_entry


@dataclass(frozen=True, slots=True)
class Status:
    """Counts over the committed shards; `root_hash` is None unless the data set is sealed, and is what was sealed."""

    url: str
    n_images: int
    n_shards: int
    shards_done: int
    counts: ShardCounts
    root_hash: str | None
    trouble: str = ""  # why a seal does not count


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image that was set aside."""

    image_id: int
    file_name: str
    reason: str
    error: str


def status(dataset: Dataset) -> Status:
    """Totals of a data set; memory does not grow with it."""
    entry, total = read_entry(dataset.store), Sum()
    generations = dataset.generations()
    for commit in dataset.commits(generations):
        total.add(commit)
    seal = None if entry is None else entry.seal
    trouble = "" if entry is None or seal is None else dataset.disagreement(entry, total) or ""
    return Status(
        url=dataset.url,
        n_images=dataset.card.n_images,
        n_shards=dataset.card.n_shards,
        shards_done=total.n_shards,
        counts=total.counts,
        root_hash=seal.root_hash if seal and not trouble else None,
        trouble=trouble,
    )


def quarantined_images(dataset: Dataset, limit: int) -> tuple[list[Quarantined], Counter[str]]:
    """The first `limit` quarantined images and how often each reason occurs."""
    listed: list[Quarantined] = []
    reasons: Counter[str] = Counter()
    for commit in dataset.commits():
        if not commit.counts.quarantined:
            continue
        for row in dataset.read_images(commit).to_pylist():
            if row["status"] == "quarantined":
                reasons[row["reason"]] += 1
                if len(listed) < limit:
                    listed.append(Quarantined(row["image_id"], row["file_name"], row["reason"], row["error"] or ""))
    return listed, reasons
