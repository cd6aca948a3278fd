"""A data set to be looked through: its images by place, and what was said of them and their masks."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ...schemas.errors import UserError
from ...schemas.manifest import ShardCommit
from ...schemas.verdicts import Verdict
from ...stages.coverage import Coverage
from ...store.dataset import Dataset
from ...store.verdicts import IMAGE, NOTHING, Opinion, VerdictFile, mask_key
from ..export.stream import stored_class_names
from ..report.gallery import describe_masks, jpeg_of
from ..report.sample import Sampled, read_rows
from ..show import Drawing

SIDE = 1280  # long side of the picture on the page, in pixels
KEPT = 64  # images whose masks are held: going back and forth is free
SHOWN = ("all", "open", "accept", "reject", "said", "tagged")  # what one may leaf through


class Reviewer:
    """Images of a data set as it was at the beginning, less the quarantined ones. Safe to share between threads.

    Memory: 16 bytes and its name for each image.
    """

    def __init__(self, dataset: Dataset, verdicts: VerdictFile) -> None:
        """Raises DamageError, and UserError if there is no image."""
        self.dataset = dataset
        self.verdicts = verdicts
        self._drawing = replace(Drawing.of(dataset), seeds=None)
        self._class_names = stored_class_names(dataset)
        self._coverage = Coverage(dataset.card.source)
        self._commits: list[ShardCommit] = []
        ids, rows, names = [], [], []
        for place, commit in enumerate(dataset.checked_commits()):
            images = dataset.read_images(commit)
            usable = np.flatnonzero(np.array([one != "quarantined" for one in images["status"].to_pylist()], bool))
            ids.append(images["image_id"].to_numpy()[usable])
            rows.append(np.stack([np.full(len(usable), place), usable], axis=1).astype(np.int32))
            names.append(images["file_name"].take(pa.array(usable)).combine_chunks())
            self._commits.append(commit)
        self._ids = np.concatenate(ids) if ids else np.empty(0, np.int64)
        if not len(self._ids):
            raise UserError(f"{dataset.url} has no image to look at: let `generate` go on first.")
        self._rows = np.concatenate(rows)
        self._names = pa.chunked_array(names, pa.string())
        self._places = {int(image_id): place for place, image_id in enumerate(self._ids)}
        self._lock = threading.RLock()
        self._held: OrderedDict[int, tuple[Sampled, dict[str, Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def place_of(self, image_id: int) -> int | None:
        """Where an image is, None if there is none of that id."""
        return self._places.get(image_id)

    def describe(self, place: int) -> dict[str, Any]:
        """An image for the page, with its masks, and what holds of them; lengths in pixels of the stored image."""
        with self._lock:
            self.verdicts.refresh()
            _, about = self._image(place)
            said = self.verdicts.of_image(int(self._ids[place]))
            keys = (IMAGE, *(mask["key"] for mask in about["masks"]))
            return {**about, "said": {key: describe_opinion(said.get(key, NOTHING)) for key in keys}}

    def photograph(self, place: int) -> bytes:
        """A JPEG at most SIDE pixels long. Raises UserError if it cannot be had."""
        with self._lock:
            sampled, _ = self._image(place)
        if not self._coverage.covers([sampled.ref])[0]:
            raise UserError("The photograph is not where the data set says that it has its photographs from.")
        found = jpeg_of(sampled, self._drawing.decode, SIDE)
        if isinstance(found, str):
            raise UserError(f"The photograph cannot be shown: {found}.")
        return found

    def find(self, place: int, step: int, show: str, name: str) -> int | None:
        """The next place from one on (itself included), upwards or downwards, that is shown; None if there is none."""
        wanted = name.casefold()
        with self._lock:
            self.verdicts.refresh()
            end = len(self) if step > 0 else -1
            for candidate in range(place, end, step):
                if self._is_shown(candidate, show) and (
                    not wanted or wanted in self._names[candidate].as_py().casefold()
                ):
                    return candidate
        return None

    def say(self, place: int, mask: str, verdict: Verdict | None, tags: Sequence[str], seen: int) -> Opinion:
        """Keep what was said of an image (mask `IMAGE`) or one of its masks.

        Raises OvertakenError if something newer than version `seen` was said, UserError if there is no such mask.
        """
        with self._lock:
            _, about = self._image(place)
            if mask != IMAGE and mask not in {one["key"] for one in about["masks"]}:
                raise UserError("The image has no such mask: open the page anew.")
            return self.verdicts.say(int(self._ids[place]), mask, verdict, tags, seen)

    def tally(self) -> dict[str, Any]:
        """How many images and masks were accepted and rejected, and the tags in use, the most frequent first."""
        with self._lock:
            counts: Counter[str] = Counter()
            tags: Counter[str] = Counter()
            for _, mask, opinion in self.verdicts.items():
                if opinion.verdict is not None:
                    counts[f"{'image' if mask == IMAGE else 'mask'}_{opinion.verdict}"] += 1
                tags.update(opinion.tags)
        kinds = [f"{what}_{verdict}" for what in ("image", "mask") for verdict in ("accept", "reject")]
        return {
            "images": len(self),
            **{kind: counts[kind] for kind in kinds},
            "tags": [tag for tag, _ in tags.most_common(50)],
        }

    def _is_shown(self, place: int, show: str) -> bool:
        if show == "all":
            return True
        said = self.verdicts.of_image(int(self._ids[place]))
        if show in ("open", "accept", "reject"):
            return said.get(IMAGE, NOTHING).verdict == (None if show == "open" else show)
        return any(one.tags if show == "tagged" else one for one in said.values())

    def _image(self, place: int) -> tuple[Sampled, dict[str, Any]]:
        if place not in self._held:
            shard, row = (int(value) for value in self._rows[place])
            sampled = next(read_rows(self.dataset, self._commits[shard], [row]))
            self._held[place] = (sampled, self._describe(place, sampled))
            if len(self._held) > KEPT:
                self._held.popitem(last=False)
        self._held.move_to_end(place)
        return self._held[place]

    def _describe(self, place: int, sampled: Sampled) -> dict[str, Any]:
        masks = describe_masks(sampled, self._drawing)
        for mask, row in zip(masks, sampled.masks.to_pylist(), strict=True):
            mask.pop("soft", None)
            mask["key"] = mask_key(row["counts"], row["height"], row["width"])
            if (label := row.get("label")) is not None:
                mask["label"] = self._class_names[label] if label < len(self._class_names) else f"class {label}"
        row = sampled.row
        about = {"place": place, "id": str(row["image_id"]), "name": row["file_name"]}
        return {**about, "w": row["width"], "h": row["height"], "masks": masks}


def describe_opinion(opinion: Opinion) -> dict[str, Any]:
    """An opinion for the page."""
    return {"verdict": opinion.verdict, "tags": list(opinion.tags), "version": opinion.version}
