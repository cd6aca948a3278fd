"""Batch normalisation over parts of a batch, as if each part stood on a GPU of its own.

Without it a network can read from the batch's statistics which key belongs to which query (MoCo, section 3.3).
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Module = TypeVar("_Module", bound=nn.Module)


class SplitBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of `splits` consecutive parts of the batch.

    The parameters and their names are those of BatchNorm2d, and eval mode is the same. Running statistics take in
    every part; one batch moves them as far as one batch of BatchNorm2d does. Raises ValueError if the batch cannot
    be cut into equal parts.
    """

    def __init__(self, num_features: int, splits: int) -> None:
        super().__init__(num_features)
        self.splits = splits

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W], B a multiple of `splits`."""
        if not self.training or self.splits == 1:
            return super().forward(x_BCHW)
        if len(x_BCHW) % self.splits:
            raise ValueError(f"a batch of {len(x_BCHW)} cannot be cut into {self.splits} equal parts")
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 - (1 - self.momentum) ** (1 / self.splits)
        parts = [
            F.batch_norm(part, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps)
            for part in x_BCHW.chunk(self.splits)
        ]
        return torch.cat(parts)


def split_batch_norm(module: _Module, splits: int) -> _Module:
    """Replace every BatchNorm2d below a module, in place, by one that normalises parts of the batch."""
    for name, child in list(module.named_children()):
        if type(child) is nn.BatchNorm2d:
            split = SplitBatchNorm2d(child.num_features, splits)
            split.load_state_dict(child.state_dict())
            split.eps, split.momentum = child.eps, child.momentum
            setattr(module, name, split.train(child.training))
        else:
            split_batch_norm(child, splits)
    return module
