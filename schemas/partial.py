"""Partial supervision: which classes have masks (base), and which have boxes alone (novel).

Splits of COCO after Hu et al., Learning to Segment Every Thing, section 4: the 20 classes of PASCAL VOC, and
the rest.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .errors import UserError

Group = Literal["novel", "base", "all"]

# As COCO writes them
VOC_NAMES = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog"),
    *("horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv"),
)


@dataclass(frozen=True, slots=True)
class Split:
    """Labels 0..K-1 of the classes that have masks, and of those that have none; both in order."""

    base: tuple[int, ...]
    novel: tuple[int, ...]

    def labels(self, group: Group) -> tuple[int, ...]:
        """Those of a group."""
        return {"base": self.base, "novel": self.novel, "all": tuple(sorted(self.base + self.novel))}[group]


def split_classes(names: Sequence[str], base: str | Sequence[str]) -> Split:
    """The split of a file's categories, named in the order of their labels.

    `base` is `voc`, `nonvoc`, or names: as a list, or in one string by comma or line, as a file has them. Case, and
    `_` for a space, do not matter; empty lines and those that start with # are skipped.

    Raises UserError for a name that no category has, and for a split that leaves no base or no novel class.
    """
    place = {_plain(name): label for label, name in enumerate(names)}
    if isinstance(base, str) and base in {"voc", "nonvoc"}:
        voc = {place[_plain(name)] for name in VOC_NAMES if _plain(name) in place}
        if len(voc) < len(VOC_NAMES):
            missing = next(name for name in VOC_NAMES if _plain(name) not in place)
            raise UserError(
                f"The categories lack {missing!r}, so that {base} is no split of theirs: name base classes."
            )
        chosen = voc if base == "voc" else set(place.values()) - voc
    else:
        wanted = [one for one in map(str.strip, _listed(base)) if one and not one.startswith("#")]
        for one in wanted:
            if _plain(one) not in place:
                near = difflib.get_close_matches(_plain(one), list(place), n=1, cutoff=0.0)
                hint = f"did you mean {names[place[near[0]]]!r}?" if near else "the file has no categories."
                raise UserError(f"No category is called {one!r}: {hint}")
        chosen = {place[_plain(one)] for one in wanted}
    novel = set(range(len(names))) - chosen
    if not chosen:
        raise UserError("The split leaves no base class, so that no mask could be learned from: name at least one.")
    if not novel:
        raise UserError(
            "The split leaves no novel class: train --model maskrcnn, which takes all masks, or name fewer."
        )
    return Split(tuple(sorted(chosen)), tuple(sorted(novel)))


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _listed(base: str | Sequence[str]) -> Sequence[str]:
    return base.replace("\n", ",").split(",") if isinstance(base, str) else base
