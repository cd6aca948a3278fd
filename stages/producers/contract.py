"""What turns photographs into records, as the engine and the plan see it.

    read pool: decode, admit -> device thread: forward -> encode pool: wait, record

Shape legend: B images of a batch, H W pixels they are padded to, n masks of an image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...schemas.labels.base import DecodeConfig
from ...schemas.records import ImageRecord, ImageRef
from ..decode import DecodedImage
from ..pixels import Shape

Admit = Callable[[DecodedImage], Shape]


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """The masks that an image has in the data set that is labelled anew, best first.

    `columns` are those of its producer.
    """

    counts: Sequence[bytes]  # COCO compressed RLE, n strings
    bbox: npt.NDArray[np.float32]  # [n, 4] XYWH in pixels
    score: npt.NDArray[np.float32]  # [n]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # name -> [n]

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True, slots=True, eq=False)
class PixelBatch:
    """Images of one shape: uint8 RGB [B, H, W, 3] in host memory, and what each was before padding.

    `priors` has one entry per image, None where there is no data set to start from; `refs` say which images these are.
    """

    pixels: Tensor
    images: Sequence[DecodedImage]
    priors: Sequence[Prior | None]
    refs: Sequence[ImageRef] = ()


class Work(Protocol):
    """What a forward pass gave, perhaps still on its way to host memory."""

    def wait(self) -> None:
        """Block the calling thread, not the device's, until it is there."""


W = TypeVar("W", bound=Work)


class Producer(Protocol[W]):
    """Lives in one process, on one device; made by `Loaded.build`.

    `memory_key` is the configuration key that bounds memory on the device, and `batch_size` its value.
    """

    device: torch.device
    batch_size: int
    decode: DecodeConfig
    memory_key: str

    def admit(self, image: DecodedImage, /) -> Shape:
        """The size an image is padded to: images of one size share a batch. Called in the read pool.

        Raises BadImage for one that cannot be used.
        """

    def forward(self, batch: PixelBatch) -> W:
        """Compute. Called in the device thread, in inference mode."""

    def record(self, work: W, i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        """The outcome for image `i` of a batch. Called in the encode pool, after `work.wait()`."""

    def close(self) -> None:
        """Let go of what it holds beside memory."""


class Loaded(Protocol):
    """A producer's weights in host memory: what planning and workers ask before one is built.

    `weights` is their name or path as given, and `weights_sha256` what of them counts. `facts` are values that they
    decide where a configuration says `auto` (see `section.auto`).
    """

    @property
    def weights(self) -> str: ...  # noqa: D102

    @property
    def weights_sha256(self) -> str: ...  # noqa: D102

    @property
    def facts(self) -> Mapping[str, Any]: ...  # noqa: D102

    def admission(self, config: Any, /) -> Admit:
        """`Producer.admit` under a resolved configuration, without a device."""

    def build(self, config: Any, device: torch.device, /) -> Producer[Any]:
        """The producer under a resolved configuration. Raises UserError where the user can help."""
