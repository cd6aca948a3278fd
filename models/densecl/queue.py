"""The queue of negatives: keys of past batches, oldest replaced first (MoCo, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...schemas.errors import UserError


class KeyQueue(nn.Module):
    """K unit vectors [E, K], and how many keys were ever put in; both are part of the state dict.

    Starts as normalised Gaussian noise. K must be a multiple of the keys put in at once, so that a batch never
    wraps around inside.
    """

    keys: Tensor
    filled: Tensor

    def __init__(self, channels: int, length: int, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(channels, length, generator=generator), dim=0))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._position: int | None = None  # on the host: asking the device would wait for it

    @torch.no_grad()
    def enqueue(self, keys_BE: Tensor) -> None:
        """Replace the oldest keys by these [B, E]. Raises UserError if B does not divide the queue's length."""
        count, length = len(keys_BE), self.keys.shape[1]
        check_queue(length, count)
        if self._position is None:
            self._position = int(self.filled) % length
        self.keys[:, self._position : self._position + count] = keys_BE.T.to(self.keys.dtype)
        self._position = (self._position + count) % length
        self.filled += count

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._position = None


def check_queue(length: int, batch: int) -> None:
    """Raise UserError if a queue of this length cannot take batches of this size."""
    if length % batch:
        below = length // batch * batch
        lengths = " or ".join(str(n) for n in (below, below + batch) if n)
        raise UserError(
            f"A queue of {length} keys cannot be filled by batches of {batch}: set model.queue to {lengths}, or take "
            "a batch size that divides it."
        )
