"""What a weights file says of how it wants to be used: the metadata of a safetensors file.

`stride_in_1x1` is "true" or "false"; `mean` and `std` are three numbers in 0..1 each, for red, green and blue, parted
by commas. Other entries are anybody's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..schemas.errors import UserError

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Stated:
    """What was said; None for what was not. `mean` and `std` are of pixels in 0..1."""

    stride_in_1x1: bool | None = None
    mean: Triple | None = None
    std: Triple | None = None


def read_stated(path: Path) -> Stated:
    """The statements of a weights file, none of other formats. Raises UserError for one that cannot be understood."""
    with path.open("rb") as file:
        head = file.read(9)
    if path.suffix != ".safetensors" and head[8:] != b"{":
        return Stated()
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:
        said: Mapping[str, str] = opened.metadata() or {}
    stride = said.get("stride_in_1x1")
    if stride not in (None, "true", "false"):
        raise UserError(f"{path} says stride_in_1x1 = {stride[:40]!r} of itself: write true or false.")
    mean, std = (_triple(path, said, name) for name in ("mean", "std"))
    if std is not None and min(std) <= 0:
        raise UserError(f"{path} says std = {std} of itself: write numbers above 0.")
    return Stated(None if stride is None else stride == "true", mean, std)


def _triple(path: Path, said: Mapping[str, str], name: str) -> Triple | None:
    if name not in said:
        return None
    try:
        red, green, blue = (float(part) for part in said[name].strip("[]() ").split(","))
    except ValueError:
        red = green = blue = math.nan
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise UserError(f"{path} says {name} = {said[name][:40]!r} of itself: write three numbers in 0..1.")
    return red, green, blue
