"""The numbers of a report, as they are written beside the page and compared by nightly jobs."""

from typing import Any

from .manifest import Document, ShardCounts

REPORT_VERSION = 1


class Histogram(Document):
    """Counts between edges; values beyond the ends are counted in the outermost bins."""

    title: str
    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    log: bool = False  # edges are spaced by ratio

    @property
    def total(self) -> int:
        """Values counted."""
        return sum(self.counts)


class Provenance(Document):
    """What the data set is made of. `parents` are root hashes of the data sets that it was labelled or derived from."""

    url: str
    root_hash: str | None  # None while it is not sealed
    fingerprint: str
    created_by: str
    code_versions: tuple[str, ...]
    weights_name: str
    weights_sha256: str
    source: str
    device: str
    config: dict[str, Any]
    producer: str = "saliency"
    parents: tuple[str, ...] = ()


class Quarantined(Document):
    """One image that could not be used."""

    file_name: str
    reason: str
    error: str


class Shift(Document):
    """Work over time: one committed shard, in seconds since the first began."""

    shard: int
    worker: str
    start: float
    end: float
    images: int


class ReportData(Document):
    """Everything the overview shows. `totals` is exact; distributions are over `images_read` images.

    `heat` is the share of box centres by place, rows from the top; `numbers` holds means by name, null where undefined.
    """

    report_version: int
    provenance: Provenance
    n_images: int
    n_shards: int
    shards_committed: int
    totals: ShardCounts
    shards_read: int
    images_read: int
    images_measured: int
    reasons: dict[str, int]
    quarantined: tuple[Quarantined, ...]
    histograms: dict[str, Histogram]
    numbers: dict[str, float | None]
    heat: tuple[tuple[float, ...], ...]
    steps: dict[str, float]
    shifts: tuple[Shift, ...]
    damaged: tuple[str, ...]
    accuracy: dict[str, Any] | None = None  # against ground truth, if it was given
