"""A data set that another one is made from: the same photographs, shard by shard, and the masks they had."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..schemas.errors import UserError
from ..schemas.records import ImageRef
from ..stages.producers.contract import Prior
from ..stages.read import is_url
from ..store.dataset import Dataset
from .naming import Exif, locate
from .sources import open_source

_CORE = ("image_id", "rank", "counts", "height", "width", "bbox", "area", "score", "source")


class Parent:
    """A sealed data set: nothing of it changes any more. Safe to share between threads."""

    def __init__(self, dataset: Dataset, root_hash: str) -> None:
        self.dataset = dataset
        self.root_hash = root_hash
        self._generations = dataset.generations()

    @property
    def url(self) -> str:
        """Where it is."""
        return self.dataset.url

    def priors(self, shard_id: int, refs: list[ImageRef]) -> list[Prior | None]:
        """The masks of each image of a shard; None for one that was set aside."""
        commit = self.dataset.read_commit(shard_id, int(self._generations[shard_id]))
        tables = self.dataset.read_shard(commit, vectors=False)
        rows = {row["image_id"]: row for row in tables.images.to_pylist()}
        found: list[Prior | None] = []
        for ref in refs:
            row = rows.get(ref.image_id)
            if row is None or row["status"] == "quarantined":
                found.append(None)
                continue
            masks = tables.masks.slice(row["first_mask"], row["n_masks"])
            found.append(
                Prior(
                    counts=masks["counts"].to_pylist(),
                    bbox=np.array(masks["bbox"].to_pylist(), np.float32).reshape(-1, 4),
                    score=masks["score"].to_numpy(),
                    columns={name: masks[name].to_pylist() for name in masks.column_names if name not in _CORE},
                )
            )
        return found


def open_parent(url: str, root_hash: str | None = None) -> Parent:
    """Raises UserError if it is not complete, or (`root_hash`) not the one that was planned from."""
    dataset = Dataset.open(url)
    seal = dataset.sealed
    if seal is None:
        raise UserError(f"{dataset.url} is not complete: repeat the command that began it, then take it --from.")
    if root_hash not in (None, seal.root_hash):
        raise UserError(f"{dataset.url} is no longer what this data set was planned from: restore it.")
    return Parent(dataset, seal.root_hash)


class ParentPhotos:
    """A `Source`: the photographs of a data set in its own order, where they were or below a folder or URL."""

    def __init__(self, parent: Parent, photos: str | None = None) -> None:
        self._parent = parent
        self._root = None if photos is None else open_source(photos).description
        if self._root is not None and not is_url(self._root) and not Path(self._root).is_dir():
            raise UserError(f"With --from, {photos} must be the folder or URL that the photographs' names start at.")
        self.description = self._root or parent.dataset.card.source
        self.ignored = 0
        self.folder = self._root
        # masks of the parent lie as its photographs did
        self.exif: Exif = parent.dataset.card.config["decode"]["exif"]

    def refs(self) -> Iterator[ImageRef]:
        """See `Source`."""
        for shard_id in range(self._parent.dataset.card.n_shards):
            for ref in self._parent.dataset.read_inputs(shard_id):
                yield ref if self._root is None else _moved(ref, self._root)


def _moved(ref: ImageRef, root: str) -> ImageRef:
    uri = locate(root, ref.file_name)
    return ImageRef(ref.image_id, ref.file_name, uri, ref.size_bytes, ref.width, ref.height)
