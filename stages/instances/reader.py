"""The data set of pseudo-labels as PyTorch sees it: map-style, any order, any number of processes."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, get_worker_info

from ...schemas.errors import UserError
from ...schemas.manifest import ShardCommit
from ...schemas.records import ImageRef
from ...schemas.verdicts import Keep
from ...store.dataset import Dataset, ShardTables
from ...store.reviewed import Reviewed
from ..coverage import Coverage
from ..read import is_url
from .samples import Sample, SampleError, after_transforms, decode_masks, load_pixels, make_sample

Transforms = Callable[[Any, dict[str, Any]], Any]
CACHED_SHARDS = 16  # tables held by a process, when the data set has more shards than fit into memory
MEMORY = 2 << 30  # bytes of tables that a process holds before it begins to forget


class PseudoLabelDataset(TorchDataset[Sample]):
    """Images with their pseudo-masks: `dataset[i]` is (tv_tensors.Image uint8 [3, H, W], target).

    target: `masks` tv_tensors.Mask uint8 [M, H, W], `boxes` tv_tensors.BoundingBoxes XYXY, `labels` zeros [M], `scores`
    [M], `vectors` (name -> float32 [M, D]), `image_id`, `file_name`, `stored` (height, width of the file).

    images: folder or bucket to take photographs from, by their names; by default where the data set found them.
    transforms: torchvision v2 transforms of (image, target). size: (short side, long side) to decode at, at most.
    keep_ratio false: photographs are stretched to `size` as (height, width).
    min_score, min_area (share of the image), max_masks: which masks; min_masks, max_images: which images.
    reviewed: heed the verdicts of `review`: True leaves out what was rejected, "accepted" takes that alone;
    verdicts: their file, by default the one beside the data set.
    vectors: names of stored vectors to give. check: compare each photograph's sha256, which decoding computes anyway,
    with that of the one that was labelled. check_shards: compare the sha256 of each file of the data set when a process
    reads it for the first time. verify: hash all of them, and look at every row, first.

    Raises UserError if the data set is not sealed (`allow_partial` takes it as it is), does not hold what was sealed,
    is damaged, or has no image left; an item raises SampleError if its photograph is gone or was changed, and
    DamageError, naming file and shard, if its shard is not as it was written.
    """

    def __init__(
        self,
        url: str,
        images: str | None = None,
        transforms: Transforms | None = None,
        *,
        size: tuple[int, int] | None = None,
        keep_ratio: bool = True,
        min_score: float = 0.0,
        min_area: float = 0.0,
        reviewed: bool | Literal["accepted"] = False,
        verdicts: str | None = None,
        min_masks: int = 1,
        max_masks: int | None = None,
        max_images: int | None = None,
        vectors: tuple[str, ...] = (),
        allow_partial: bool = False,
        verify: bool = False,
        check: bool = True,
        check_shards: bool = True,
        max_pixels: int = 100_000_000,
    ) -> None:
        if images is not None and not is_url(images) and not Path(images).expanduser().is_dir():
            raise UserError(f"{images} is no folder: name that of the photographs, or leave it to the data set.")
        self.source = Dataset.open(url, check=check_shards)
        sealed = self.source.sealed
        if sealed is None and not allow_partial:
            raise UserError(
                f"{url} is not sealed: finish it with `generate`, or take it as it is (allow_partial=True)."
            )
        if verify:
            _verify(self.source)
        prompts = self.source.card.config.get("prompts")
        missing = [name for name in vectors if isinstance(prompts, dict) and not prompts.get(name)]
        if missing:
            raise UserError(f"{url} holds no {missing[0]} vectors: make it with --set prompts.{missing[0]}=true.")
        self.root_hash = None if sealed is None else sealed.root_hash
        self.transforms = transforms
        self._images, self._size, self._vectors = images, size, vectors
        self._keep_ratio = keep_ratio
        self._min_score, self._min_area, self._max_masks = min_score, min_area, max_masks
        keep: Keep = "accepted" if reviewed == "accepted" else "not-rejected"
        self._reviewed = Reviewed.open(self.source, keep, verdicts) if reviewed or verdicts else None
        self._check, self._max_pixels = check, max_pixels
        self._coverage = Coverage(self.source.card.source)
        self._exif = _exif(self.source.card.config)
        self._commits = list(self.source.checked_commits())
        self._index = self._select(min_masks)[:max_images]
        if not len(self._index):
            raise UserError(f"{url} has no image with {min_masks} masks that pass the filters: loosen them.")
        self._tables: OrderedDict[int, ShardTables] = OrderedDict()
        self._refs: dict[int, list[ImageRef]] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Sample:
        return self.load(index, self._size)

    def load(self, index: int, size: tuple[int, int] | None) -> Sample:
        """An item decoded at (short side, at most long side)."""
        place, row_number = (int(value) for value in self._index[index])
        tables = self._shard(place)
        row = tables.images.slice(row_number, 1).to_pylist()[0]
        masks = tables.masks.slice(row["first_mask"], row["n_masks"])
        keep = np.flatnonzero(self._passes(masks))[: self._max_masks]
        ref = self._ref(place, row_number, row)
        digest = row["sha256"] if self._check else None
        pixels, stored = load_pixels(ref, size, self._max_pixels, digest, self._exif, keep_ratio=self._keep_ratio)
        counts = masks["counts"].take(keep).to_pylist()
        rles = [{"size": [row["height"], row["width"]], "counts": one} for one in counts]
        sample = make_sample(
            pixels,
            decode_masks(rles, *pixels.shape[:2]),
            [0] * len(keep),
            {"image_id": row["image_id"], "file_name": row["file_name"], "stored": stored},
            {name: self._read_vectors(tables, name, row["first_mask"] + keep) for name in self._vectors},
            masks["score"].to_numpy()[keep].tolist(),
        )
        return sample if self.transforms is None else after_transforms(self.transforms(*sample))

    def file_name(self, index: int) -> str:
        """The name of an image, without reading it."""
        place, row_number = (int(value) for value in self._index[index])
        name: str = self._shard(place).images["file_name"][row_number].as_py()
        return name

    def _select(self, min_masks: int) -> npt.NDArray[np.int32]:
        """(commit, row) of every image that passes: [n, 2]."""
        found = []
        reviewed = self._reviewed
        filtered = self._min_score > 0 or self._min_area > 0 or reviewed is not None
        for place, commit in enumerate(self._commits):
            images = self.source.read_images(commit)
            counts = images["n_masks"].to_numpy().astype(np.int64)
            if filtered and commit.counts.masks:
                ends = np.concatenate([[0], np.cumsum(self._passes(self.source.read_masks(commit)))])
                first = images["first_mask"].to_numpy()
                counts = ends[first + counts] - ends[first]
            usable = np.array([status != "quarantined" for status in images["status"].to_pylist()], bool)
            if reviewed is not None:
                usable &= np.array([reviewed.keeps_image(one) for one in images["image_id"].to_pylist()], bool)
            rows = np.flatnonzero(usable & (counts >= min_masks)).astype(np.int32)
            found.append(np.stack([np.full(len(rows), place, np.int32), rows], axis=1))
        return np.concatenate(found) if found else np.empty((0, 2), np.int32)

    def _passes(self, masks: Any) -> npt.NDArray[np.bool_]:
        pixels = masks["height"].to_numpy().astype(np.float64) * masks["width"].to_numpy()
        passes: npt.NDArray[np.bool_] = (masks["score"].to_numpy() >= self._min_score) & (
            masks["area"].to_numpy() >= self._min_area * pixels
        )
        if self._reviewed is not None:
            passes &= self._reviewed.keeps_rows(masks)
        return passes

    def _ref(self, place: int, row_number: int, row: dict[str, Any]) -> ImageRef:
        size = {"width": row["width"], "height": row["height"]}
        if self._images is None:
            if place not in self._refs:
                self._refs[place] = self.source.refs_of(self._commits[place], self._shard(place).images)
            ref = self._refs[place][row_number]
            if not self._coverage.covers([ref])[0]:
                raise SampleError(
                    f"{ref.file_name} is not opened, since the data set's source does not cover its address: name the "
                    "folder or URL of the photographs by images.",
                    "not_covered",
                    ref.file_name,
                )
            return replace(ref, **size)
        if not is_url(row["file_name"]) and {"..", "/"} & set(PurePosixPath(row["file_name"]).parts):
            return ImageRef(row["image_id"], row["file_name"], "", **size)  # which leads out: never opened
        joined = f"{self._images.rstrip('/')}/{row['file_name']}"
        uri = joined if is_url(self._images) else str(Path(self._images).expanduser() / row["file_name"])
        return ImageRef(row["image_id"], row["file_name"], uri, **size)

    def _shard(self, place: int) -> ShardTables:
        if place not in self._tables:
            commit = self._commits[place]
            self._held += sum(entry.size for name, entry in commit.files.items() if self._wants(name))
            self._tables[place] = self._read(commit)
            while len(self._tables) > 1 and self._held > MEMORY and len(self._tables) > CACHED_SHARDS:
                gone, _ = self._tables.popitem(last=False)
                self._refs.pop(gone, None)
                sizes = self._commits[gone].files.items()
                self._held -= sum(entry.size for name, entry in sizes if self._wants(name))
        self._tables.move_to_end(place)
        return self._tables[place]

    def _wants(self, name: str) -> bool:
        return "/" not in name or any(name.startswith(f"prompts.zarr/{vector}/") for vector in self._vectors)

    def _read(self, commit: ShardCommit) -> ShardTables:
        wanted = [name for name in commit.files if self._wants(name) or name == "prompts.zarr/zarr.json"]
        tables = self.source.tables(commit, {name: self.source.read_file(commit, name) for name in wanted})
        if absent := [name for name in self._vectors if name not in tables.vectors]:
            raise UserError(f"{self.source.url} holds no {absent[0]} vectors: ask for others, or make it with them.")
        return tables

    @staticmethod
    def _read_vectors(tables: ShardTables, name: str, rows: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(tables.vectors[name][rows].astype(np.float32))


def _exif(config: Mapping[str, Any]) -> Literal["ignore", "apply"]:
    """How the photographs lay for the labels: so do their masks."""
    decode = config.get("decode")
    return "apply" if isinstance(decode, dict) and decode.get("exif") == "apply" else "ignore"


def _verify(dataset: Dataset) -> None:
    from ...store.check import verify

    report = verify(dataset)
    if report.problems:
        raise UserError(f"{dataset.url} is damaged ({report.problems[0]}): run `saliency-prompt verify` on it.")


class ShuffledStream(IterableDataset[Sample]):
    """The items of a map-style data set in a shuffled order that depends on seed and position alone.

    The order is the same for any number of ranks and loader processes: position p goes to rank p % world, and of
    these every loader process takes its turn. With another number of ranks the stream goes on from its state.
    torchdata's `StatefulDataLoader` saves and restores the middle of a pass, with loader processes too; these begin
    every pass as the stream stands in the main process, so that one calls `set_epoch` before each.
    """

    def __init__(self, data: TorchDataset[Sample], seed: int, rank: int = 0, world: int = 1, start: int = 0) -> None:
        self._data, self._seed, self._rank, self._world = data, seed, rank, world
        self._start, self._passed = start, 0  # where turns are counted from, and how far beyond it this stream is

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        turn, turns = (0, 1) if info is None else (info.id, info.num_workers)
        count = len(self._data)  # type: ignore[arg-type]
        first = self._start
        end = first - first % count + count
        for position in range(first + self._rank, end, self._world):
            if position - first < self._passed or (position - first) // self._world % turns != turn:
                continue
            self._passed = position - self._rank + self._world - first
            yield self._data[int(self.order(position // count)[position % count])]
        self._start, self._passed = end, 0

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The order of one pass."""
        found: npt.NDArray[np.int64] = np.random.default_rng((self._seed, epoch)).permutation(len(self._data))  # type: ignore[arg-type]
        return found

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of a pass, unless the stream is in the middle of it."""
        count = len(self._data)  # type: ignore[arg-type]
        if (self._start + self._passed) // count != epoch:
            self._start, self._passed = epoch * count, 0

    def state_dict(self) -> dict[str, int]:
        """Where it stands: `start` + `passed` positions are behind it."""
        return {"start": self._start, "passed": self._passed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._start, self._passed = state["start"], state["passed"]
