"""What a model that finds instances can do, whatever it is inside.

Shape legend: B images, M objects of an image, n found instances, K classes, D channels, H W pixels of the padded
batch, h w cells of a map.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .backbones.base import Backbone

# From a count to its mean over all processes, but at least one in all of them: a loss divided by it has, averaged over
# processes, the gradients of one process with the whole batch.
Average = Callable[[Tensor], Tensor]
Size = tuple[int, int]  # (height, width)


def alone(count: Tensor) -> Tensor:
    """`Average` of a process that trains by itself."""
    return count.clamp_min(1)


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The objects of one image.

    masks uint8 [M, H, W] of the padded batch; labels int64 [M]; boxes XYXY [M, 4] with exclusive ends, in pixels of
    the batch; weights fp32 [M]: a pseudo-label's score, else 1. has_mask bool [M]: whose mask may be learned from, None
    where all may; a model that cannot do without refuses. vectors fp32 [M, D]: what each may learn to be like.
    """

    masks: Tensor
    labels: Tensor
    boxes: Tensor
    weights: Tensor
    has_mask: Tensor | None = None
    vectors: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How many instances of an image are wanted, and from which score."""

    most: int = 100
    min_score: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The instances of one image, best first.

    maps: soft masks in 0..1, [n, h, w]: of the whole padded image, or, where `boxes` are given, of what lies in each
    box. scores fp32 [n]. labels int64 [n] in 0..K-1. sources int64 [n]: the query, cell or region each came from; a
    source that is found under several labels occurs several times. boxes XYXY [n, 4] in pixels of the batch.
    vectors [n, D]: what a model can say of an instance beside its class.
    """

    maps: Tensor
    scores: Tensor
    labels: Tensor
    sources: Tensor
    boxes: Tensor | None = None
    vectors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)


class Detector(nn.Module):
    """A model that is trained on instances and finds them.

    Images come normalised and padded at the right and bottom to one size, a multiple of `multiple` pixels; `sizes`
    are those of the images in it. Raises UserError where the user can help.
    """

    backbone: Backbone
    num_classes: int
    multiple: int = 32
    most: int = 100  # instances of an image that are worth asking for

    def advance(self, epoch: float) -> None:
        """Told before each step how many epochs are done, with fractions; for weights that change in training."""

    def losses(
        self, images_B3HW: Tensor, sizes: Sequence[Size], targets: Sequence[Targets], average: Average
    ) -> dict[str, Tensor]:
        """Weighted losses by name, to be summed. Every trainable parameter gets a gradient, with objects or without."""
        raise NotImplementedError

    def find(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Found]:
        """The instances of each image. Called in inference mode; what is found in one image depends on it alone."""
        raise NotImplementedError

    def class_layers(self) -> list[str]:
        """Prefixes of parameters whose shape or meaning depends on the classes."""
        raise NotImplementedError

    def inherit(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of `class_layers`, what need not begin anew: this model's parameters made from another's state dict."""
        del state
        return {}
