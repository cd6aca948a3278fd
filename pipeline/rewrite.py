"""From complete data sets to a new one: records are read, changed or left out, and written under a card of its own."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.errors import UserError
from ..schemas.manifest import FORMATS, CommitInfo, DatasetCard, Derivation, Seal, fingerprint
from ..schemas.records import CORE_COLUMNS, ImageRecord, ImageRef, MaskSet
from ..schemas.registry import parse_label_config
from ..schemas.section import identity
from ..store.dataset import Dataset, ShardTables
from ..store.inputs import discard_inputs, write_inputs
from ..store.layout import CARD
from ..store.objects import open_store
from ..store.provenance import publish_card
from ..store.shard import build_shard, commit_shard
from ..version import __version__
from .run import count

LEVEL = 1  # of zstd

Labelled = tuple[ImageRef, ImageRecord]
Records = Callable[[], Iterator[Labelled]]  # the same each time it is called


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """A complete data set that others are made from."""

    dataset: Dataset
    root_hash: str

    @classmethod
    def open(cls, url: str) -> "Origin":
        """Raises UserError if it is not complete."""
        dataset = Dataset.open(url)
        seal = dataset.sealed
        if seal is None:
            raise UserError(f"{dataset.url} is not complete: repeat the command that began it first.")
        return cls(dataset, seal.root_hash)

    def records(self) -> Iterator[Labelled]:
        """All images in order, with their masks and vectors. Raises DamageError."""
        for commit in self.dataset.checked_commits():
            tables = self.dataset.read_shard(commit)
            refs = self.dataset.refs_of(commit, tables.images)
            for ref, row in zip(refs, tables.images.to_pylist(), strict=True):
                first, n = row.pop("first_mask"), row.pop("n_masks")
                masks = None if not n else _mask_set(tables, first, n)
                yield ref, ImageRecord(**row, masks=masks)

    def image_ids(self) -> npt.NDArray[np.int64]:
        """The ids of all images, in order."""
        ids = [self.dataset.read_images(commit)["image_id"].to_numpy() for commit in self.dataset.checked_commits()]
        return np.concatenate(ids)


def keep_masks(record: ImageRecord, rows: Sequence[int]) -> ImageRecord:
    """The record with these of its masks, `empty` if there is none left."""
    found = record.masks
    if found is None or len(rows) == len(found):
        return record
    if not rows:
        return replace(record, masks=None, status="empty")
    index = np.array(rows)
    return replace(
        record,
        masks=replace(
            found,
            counts=[found.counts[row] for row in rows],
            bbox=found.bbox[index],
            area=found.area[index],
            score=found.score[index],
            vectors={name: array[index] for name, array in found.vectors.items()},
            saliency=None if found.saliency is None else found.saliency[index],
            extra={name: _taken(column, rows) for name, column in found.extra.items()},
        ),
    )


def write_derived(
    out: str, origins: Sequence[Origin], records: Records, operation: str, options: dict[str, Any], source: str
) -> tuple[Dataset, Seal]:
    """Write the records as a data set and seal it; one that was begun with the same call is resumed.

    Card and configuration are those of the first origin. `records` is called twice: for the plan and for the shards.
    Raises UserError if no image is left, two have one id, or something else is at `out`.
    """
    card = _card(origins, operation, options, source)
    store = open_store(out)
    summary = write_inputs(store, (ref for ref, _ in records()), card.shard_size)
    planned = card.model_copy(
        update={
            "n_images": summary.n_images,
            "n_shards": summary.n_shards,
            "plan": summary.plan,
            "inputs_sha256": summary.inputs_sha256,
        }
    )
    if store.exists(CARD) or not publish_card(store, planned, summary.files):
        discard_inputs(store, summary.plan)
        _refuse_other(Dataset.open(out), planned)
    dataset = Dataset.open(out)
    done = dataset.committed()
    stream = records()
    for shard_id in range(dataset.card.n_shards):
        started, clock = time.time(), time.perf_counter()
        shard = [record for _, record in islice(stream, dataset.card.shard_size)]
        if done[shard_id]:
            continue
        files = build_shard(shard, LEVEL, dataset.card.masks_schema, dataset.card.format_version)
        commit_shard(
            dataset.store,
            shard_id,
            files,
            fingerprint=dataset.card.fingerprint,
            counts=count(shard),
            format_version=dataset.card.format_version,
            info=CommitInfo(
                started=started,
                seconds=time.perf_counter() - clock,
                host=socket.gethostname(),
                code_version=__version__,
            ),
        )
    return dataset, dataset.seal()


def _card(origins: Sequence[Origin], operation: str, options: dict[str, Any], source: str) -> DatasetCard:
    """The card but for what the plan says."""
    first = origins[0].dataset.card
    derivation = Derivation(operation=operation, options=options, parents=tuple(one.root_hash for one in origins))
    config = parse_label_config(first.producer, first.config)
    return first.model_copy(
        update={
            "format_version": FORMATS[-1],
            "created_by": __version__,
            "source": source,
            "parent": origins[0].root_hash,
            "derivation": derivation,
            "fingerprint": fingerprint(identity(config), first.weights_sha256, origins[0].root_hash, derivation),
        }
    )


def _refuse_other(there: Dataset, wanted: DatasetCard) -> None:
    if (there.card.fingerprint, there.card.inputs_sha256) != (wanted.fingerprint, wanted.inputs_sha256):
        raise UserError(f"{there.url} holds another data set: choose another --out.")


def _mask_set(tables: ShardTables, first: int, n: int) -> MaskSet:
    masks = tables.masks.slice(first, n)
    core = {column.name for column in CORE_COLUMNS}
    return MaskSet(
        counts=masks["counts"].to_pylist(),
        bbox=np.array(masks["bbox"].to_pylist(), np.float32).reshape(-1, 4),
        area=masks["area"].to_numpy(),
        score=masks["score"].to_numpy(),
        vectors={name: array[first : first + n] for name, array in tables.vectors.items()},
        saliency=_maps(tables, first, n),
        source=masks["source"][0].as_py(),
        extra={name: masks[name].to_pylist() for name in masks.column_names if name not in core},
    )


def _maps(tables: ShardTables, first: int, n: int) -> npt.NDArray[np.uint8] | None:
    if tables.saliency is None:
        return None
    offsets, shapes = tables.saliency["offsets"], tables.saliency["shapes"]
    flat: npt.NDArray[np.uint8] = tables.saliency["maps"][offsets[first] : offsets[first + n]]
    return flat.reshape(n, *shapes[first].tolist())


def _taken(column: Any, rows: Sequence[int]) -> Any:
    return column[np.array(rows)] if isinstance(column, np.ndarray) else [column[row] for row in rows]
