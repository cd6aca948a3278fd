"""Pairs that the annotation engine made: a sealed data set, with the quantile of text scores applied here."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...store.dataset import Dataset
from ..read import is_url
from .pairs import Exif, Pair

BINS = 1024  # of the histogram of text scores over [-1, 1]


class PseudoPairs:
    """See `PairSource`: masks with a text of a data set, less those with the lowest scores of their source.

    Rows without a text have no part; texts of one mask that pass are texts of one pair.
    """

    pseudo = True

    def __init__(self, url: str, images: str | None = None, drop_lowest: float = 20.0) -> None:
        self._source = Dataset.open(url)
        seal = self._source.sealed
        if seal is None:
            raise UserError(f"{url} is not complete: repeat the command that began it, then train on it.")
        if "texts" not in self._source.card.mask_columns:
            raise UserError(f"{url} has masks without texts: make pairs with `annotate`.")
        self.name, self.sha256 = url, seal.root_hash
        self._images = None if images is None else images.rstrip("/")
        self._exif: Exif = self._source.card.config["decode"]["exif"]
        self._rows: list[tuple[ImageRef, str | None, bytes, tuple[str, ...]]] = []
        thresholds = score_thresholds(self._source, drop_lowest)
        for commit in self._source.checked_commits():
            photographs = self._source.read_images(commit)
            refs = dict(
                zip(photographs["image_id"].to_pylist(), self._source.refs_of(commit, photographs), strict=True)
            )
            about = {row["image_id"]: row for row in photographs.to_pylist()}
            masks = self._source.read_masks(commit).select(["image_id", "counts", "texts", "text_scores", "source"])
            for row in masks.to_pylist():
                scored = zip(row["texts"], row["text_scores"], strict=True)
                texts = tuple(text for text, score in scored if text and passes(score, thresholds.get(row["source"])))
                if texts:
                    photograph = about[row["image_id"]]
                    ref = self._ref(refs[row["image_id"]], photograph["width"], photograph["height"])
                    self._rows.append((ref, photograph["sha256"], row["counts"], texts))
        if not self._rows:
            raise UserError(f"{url} has no pair left: lower data.drop_lowest, or make another one.")

    def __len__(self) -> int:
        return len(self._rows)

    def pair(self, place: int) -> Pair:
        """See `PairSource`."""
        ref, sha256, counts, texts = self._rows[place]
        mask = {"size": [ref.height, ref.width], "counts": counts}
        return Pair(ref, [mask], texts, sha256=sha256, exif=self._exif)

    def texts(self) -> Iterator[str]:
        """See `PairSource`."""
        for *_, texts in self._rows:
            yield from texts

    def _ref(self, ref: ImageRef, width: int, height: int) -> ImageRef:
        uri = ref.uri
        if self._images is not None:
            joined = f"{self._images}/{ref.file_name}"
            uri = joined if is_url(joined) else str(Path(self._images).expanduser() / ref.file_name)
        return ImageRef(ref.image_id, ref.file_name, uri, width=width, height=height)


def passes(score: float, threshold: float | None) -> bool:
    """Whether a score is not among the lowest; one that was never computed (NaN) passes."""
    return threshold is None or not score < threshold


def score_thresholds(source: Dataset, drop_lowest: float) -> dict[str, float]:
    """Of each source, the score below which the lowest per cent lie, from histograms merged over shards."""
    histograms: dict[str, npt.NDArray[np.int64]] = {}
    if drop_lowest > 0:
        for commit in source.checked_commits():
            for row in source.read_masks(commit).select(["source", "text_scores"]).to_pylist():
                counts = histograms.setdefault(row["source"], np.zeros(BINS, np.int64))
                add_scores(counts, np.array(row["text_scores"], np.float64))
    return {name: threshold_of(counts, drop_lowest) for name, counts in histograms.items()}


def add_scores(counts_K: npt.NDArray[np.int64], scores_n: npt.NDArray[np.float64]) -> None:
    """Count scores into a histogram over [-1, 1]; NaN counts nowhere."""
    known = scores_n[np.isfinite(scores_n)]
    np.add.at(counts_K, ((known + 1) / 2 * len(counts_K)).astype(np.int64).clip(0, len(counts_K) - 1), 1)


def threshold_of(counts_K: npt.NDArray[np.int64], drop_lowest: float) -> float:
    """The upper end of the last bin whose scores all are among the lowest per cent; -1 where none is."""
    below = np.cumsum(counts_K)
    dropped = int((below <= below[-1] * drop_lowest / 100 + 1e-9).sum()) if below[-1] else 0
    if dropped and below[dropped - 1] == 0:
        return -1.0
    return dropped / len(counts_K) * 2 - 1
