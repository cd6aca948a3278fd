"""Pairs that the annotation engine made: a sealed data set, with the quantile of text scores applied here."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...schemas.errors import UserError
from ...schemas.labels.annotate import EngineConfig
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
        if self._source.card.producer == "annotate":
            made = EngineConfig.model_validate(self._source.card.config["annotate"])
            if not made.makes_pairs:
                raise UserError(f"{url} is a pass before the last ({made.doing[-1]}): train on the last one's.")
        self.name, self.sha256 = url, seal.root_hash
        self._images = None if images is None else images.rstrip("/")
        self._exif: Exif = self._source.card.config["decode"]["exif"]
        self._rows: list[tuple[ImageRef, str | None, bytes, tuple[str, ...]]] = []
        dropped = dropped_bins(self._source, drop_lowest)
        for commit in self._source.checked_commits():
            photographs = self._source.read_images(commit)
            refs = dict(
                zip(photographs["image_id"].to_pylist(), self._source.refs_of(commit, photographs), strict=True)
            )
            about = {row["image_id"]: row for row in photographs.to_pylist()}
            masks = self._source.read_masks(commit).select(["image_id", "counts", "texts", "text_scores", "source"])
            for row in masks.to_pylist():
                scored = zip(row["texts"], row["text_scores"], strict=True)
                texts = tuple(text for text, score in scored if text and passes(score, dropped.get(row["source"], 0)))
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


def passes(score: float, dropped: int) -> bool:
    """Whether a score lies above so many bins; one that was never computed (NaN) passes."""
    return not np.isfinite(score) or int(_bins(np.array([score]))[0]) >= dropped


def dropped_bins(source: Dataset, drop_lowest: float) -> dict[str, int]:
    """Of each source, how many bins of scores hold its lowest per cent: from histograms merged over shards."""
    return {name: bins_below(counts, drop_lowest) for name, counts in score_histograms(source).items()}


def score_histograms(source: Dataset) -> dict[str, npt.NDArray[np.int64]]:
    """Of each source, text scores counted in equal bins over [-1, 1]."""
    histograms: dict[str, npt.NDArray[np.int64]] = {}
    for commit in source.checked_commits():
        for row in source.read_masks(commit).select(["source", "text_scores"]).to_pylist():
            counts = histograms.setdefault(row["source"], np.zeros(BINS, np.int64))
            add_scores(counts, np.array(row["text_scores"], np.float64))
    return histograms


def add_scores(counts_K: npt.NDArray[np.int64], scores_n: npt.NDArray[np.float64]) -> None:
    """Count scores into a histogram; NaN counts nowhere."""
    np.add.at(counts_K, _bins(scores_n[np.isfinite(scores_n)]), 1)


def bins_below(counts_K: npt.NDArray[np.int64], drop_lowest: float) -> int:
    """The most bins, from the lowest on, that hold no more than the lowest per cent of scores."""
    below = np.cumsum(counts_K)
    fits = below <= below[-1] * drop_lowest / 100 + 1e-9
    held = np.flatnonzero(fits & (below > 0))
    return int(held[-1]) + 1 if len(held) else 0


def bin_score(place: int) -> float:
    """The score at which a bin begins."""
    return place / BINS * 2 - 1


def _bins(scores_n: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return ((scores_n + 1) / 2 * BINS).astype(np.int64).clip(0, BINS - 1)
