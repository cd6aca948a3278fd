"""What people said of masks and images: the lines of the file that keeps it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

VERDICTS_FORMAT = 1
MOST_TAGS = 32  # of a mask or image

Verdict = Literal["accept", "reject"]
Keep = Literal["not-rejected", "accepted"]  # what readers take
Tag = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")
]


class Line(BaseModel):
    """One line: what was said last of a mask or image counts.

    `mask` is `store.verdicts.mask_key` of a mask, empty for the image itself. Without verdict and tags it is as if
    nothing had been said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: Annotated[int, Field(ge=0, lt=2**63)]
    mask: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{16})?$")] = ""
    verdict: Verdict | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=MOST_TAGS)] = ()
    time: Annotated[float, Field(ge=0, le=1e11)]  # seconds since the epoch


class Head(BaseModel):
    """The first line: the format, and the root hash of the data set that was looked at first, for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    verdicts_format: int
    created_by: str = ""
    root_hash: str | None = None
