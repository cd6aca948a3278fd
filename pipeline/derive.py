"""`dataset filter|sample|split|merge|dedup`: complete data sets made from complete ones, with their lineage."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from ..schemas.errors import UserError
from ..schemas.manifest import Seal
from ..schemas.records import ImageRecord
from ..stages.read import is_url
from ..store.dataset import Dataset
from ..store.reviewed import Reviewed
from .export.choice import Choice, scattered
from .rewrite import Labelled, Origin, keep_masks, write_derived

BLOCK = 1024  # images compared at once

Made = tuple[Dataset, Seal]


@dataclass(frozen=True, slots=True)
class MaskFilter:
    """Which masks stay. `top` counts those that pass the rest; `labels` are indices of classes, None for all.

    `reviewed` is what people let pass.
    Images without masks stay, unless `drop_empty`; quarantined ones stay, unless `drop_quarantined`.
    """

    min_score: float = 0.0
    top: int | None = None
    min_area: int = 0
    max_share: float = 1.0
    labels: tuple[int, ...] | None = None
    drop_empty: bool = False
    drop_quarantined: bool = False
    reviewed: Reviewed | None = None

    def describe(self) -> dict[str, object]:
        """What the new card says of it."""
        options = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "reviewed"}
        return options if self.reviewed is None else {**options, "reviewed": self.reviewed.describe()}

    def __call__(self, record: ImageRecord) -> ImageRecord | None:
        """The record with the masks that stay, None if it does not stay itself."""
        if self.reviewed is not None and not self.reviewed.keeps_image(record.image_id):
            return None
        if record.status == "quarantined":
            return None if self.drop_quarantined else record
        found = record.masks
        if found is not None:
            stays = (found.score >= self.min_score) & (found.area >= self.min_area)
            stays &= found.area <= self.max_share * record.width * record.height
            if self.reviewed is not None:
                about = (record.image_id, found.counts, record.height, record.width)
                stays &= self.reviewed.keeps_masks(*about)
            if self.labels is not None:
                stays &= np.isin(np.asarray(found.extra["label"]), self.labels)
            record = keep_masks(record, np.flatnonzero(stays)[: self.top].tolist())
        return None if self.drop_empty and record.masks is None else record


def filter_masks(url: str, out: str, wanted: MaskFilter) -> Made:
    """Leave out masks. Raises UserError for labels where there are none, or if no image stays."""
    origin = Origin.open(url)
    if wanted.labels is not None and "label" not in origin.dataset.card.mask_columns:
        raise UserError(f"{origin.dataset.url} has no labels to choose by: leave --label out.")

    def records() -> Iterator[Labelled]:
        for ref, record in origin.records():
            if (kept := wanted(record)) is not None:
                yield ref, kept

    return write_derived(out, [origin], records, "filter", wanted.describe(), origin.dataset.card.source)


def sample(url: str, out: str, *, images: int, seed: int = 0) -> Made:
    """So many images, by chance: the same for the same ids and seed. Raises UserError."""
    origin = Origin.open(url)
    ids_N = origin.image_ids()
    chosen = ids_N[np.argsort(scattered(ids_N, seed), kind="stable")[:images]]
    return _part(origin, out, chosen, "sample", {"images": images, "seed": seed})


def split(url: str, outs: Sequence[str], shares: Sequence[float]) -> list[Made]:
    """One data set for each share, every image in one of them: by its id alone in which order. Raises UserError."""
    origin = Origin.open(url)
    ids_N = origin.image_ids()
    parts_N = Choice(shares=tuple(shares)).split(ids_N)
    if len(set(parts_N.tolist())) < len(outs):
        raise UserError(f"{origin.dataset.url} has {len(ids_N)} images: too few for these shares.")
    options = {"shares": list(shares)}
    return [
        _part(origin, out, ids_N[parts_N == number], "split", {**options, "part": number})
        for number, out in enumerate(outs)
    ]


def merge(urls: Sequence[str], out: str) -> Made:
    """The images of all, one data set after another.

    Raises UserError if they are of different producers, weights or vectors, or if an image is in two.
    """
    origins = [Origin.open(url) for url in urls]
    cards = [origin.dataset.card for origin in origins]
    for card, origin in zip(cards, origins, strict=True):
        for name, said in (("producer", "producers"), ("weights_sha256", "weights"), ("mask_columns", "columns")):
            if getattr(card, name) != getattr(cards[0], name):
                raise UserError(f"{origin.dataset.url} and {urls[0]} are of different {said}: merge what is alike.")
        for section in ("prompts", "masks"):
            if _said(card.config.get(section)) != _said(cards[0].config.get(section)):
                raise UserError(
                    f"{origin.dataset.url} and {urls[0]} differ in {section} (vectors or classes): merge what is alike."
                )

    def records() -> Iterator[Labelled]:
        for origin in origins:
            yield from origin.records()

    return write_derived(out, origins, records, "merge", {}, common_source([card.source for card in cards]))


def dedup(url: str, out: str, *, threshold: float = 0.99) -> Made:
    """Of images with the same bytes, or whose masks' vectors are nearly the same, keep the first.

    An image's descriptor is the mean of its masks' `box_mean` (else `seed`) vectors by score; two are the same from a
    cosine of `threshold` on. Images without masks are compared by their bytes alone. Raises UserError.
    """
    origin = Origin.open(url)
    stays: set[int] = set()
    seen: set[str] = set()
    waiting: list[tuple[int, npt.NDArray[np.float32]]] = []
    kept: list[npt.NDArray[np.float32]] = []
    for ref, record in origin.records():
        if record.sha256 is not None and record.sha256 in seen:
            continue
        if record.sha256 is not None:
            seen.add(record.sha256)
        described = descriptor(record)
        if described is None:
            stays.add(ref.image_id)
            continue
        waiting.append((ref.image_id, described))
        if len(waiting) == BLOCK:
            stays |= _distinct(waiting, kept, threshold)
            waiting = []
    stays |= _distinct(waiting, kept, threshold)
    chosen = np.array(sorted(stays), np.int64)
    return _part(origin, out, chosen, "dedup", {"threshold": threshold})


def descriptor(record: ImageRecord) -> npt.NDArray[np.float32] | None:
    """The mean vector of an image's masks by score, of length one; None if there is none."""
    found = record.masks
    name = next((name for name in ("box_mean", "seed") if found is not None and name in found.vectors), None)
    if found is None or name is None:
        return None
    vectors_nD = found.vectors[name].astype(np.float32)
    mean_D = (vectors_nD * (found.score[:, None] + 1e-6)).sum(0)
    length = float(np.linalg.norm(mean_D))
    return None if length == 0 else mean_D / length


def common_source(sources: Sequence[str]) -> str:
    """The place below which all photographs are. Raises UserError if there is none but everything."""
    if len(set(sources)) == 1:
        return sources[0]
    places = [source.rpartition(" with images in ")[2] for source in sources]  # of lists their root
    urls = [is_url(place) for place in places]
    if not any(urls) and (common := os.path.commonpath(places)) != os.path.sep:
        return common
    if all(urls):
        alike = takewhile(
            lambda parts: len(set(parts)) == 1, zip(*(place.split("/") for place in places), strict=False)
        )
        shared = [parts[0] for parts in alike]
        if len(shared) >= 3:  # scheme, nothing, bucket
            return "/".join(shared)
    raise UserError(
        "The photographs of these data sets have no folder or bucket in common: bring them together, or train on the "
        "data sets one after another."
    )


def _distinct(
    waiting: Sequence[tuple[int, npt.NDArray[np.float32]]], kept: list[npt.NDArray[np.float32]], threshold: float
) -> set[int]:
    """Ids of those unlike all that are kept and unlike each other; they are added to `kept`, a block at a time."""
    if not waiting:
        return set()
    block_BD = np.stack([described for _, described in waiting])
    new = np.ones(len(block_BD), bool)
    for earlier_KD in kept:
        new &= (block_BD @ earlier_KD.T).max(1) < threshold
    among_BB = block_BD @ block_BD.T >= threshold
    for i in range(len(block_BD)):
        if new[i]:
            new[i + 1 :] &= ~among_BB[i, i + 1 :]
    if new.any():
        kept.append(block_BD[new])
    return {image_id for (image_id, _), is_new in zip(waiting, new, strict=True) if is_new}


def _part(origin: Origin, out: str, chosen: npt.NDArray[np.int64], operation: str, options: dict[str, object]) -> Made:
    wanted = set(chosen.tolist())

    def records() -> Iterator[Labelled]:
        return ((ref, record) for ref, record in origin.records() if ref.image_id in wanted)

    return write_derived(out, [origin], records, operation, options, origin.dataset.card.source)


def _said(section: object) -> object:
    """What of a section matters to a reader: of imported masks their classes."""
    return section.get("class_names", section) if isinstance(section, dict) else section
