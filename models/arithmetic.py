"""Which units compute a matrix product."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_bf16_products(device: torch.device) -> Iterator[None]:
    """Let fp32 matrix products of bf16-valued factors run on bf16 units: the result is the fp32 one.

    A product of two bf16 numbers is exact in fp32 and sums are kept in fp32, so that only the order of
    summation differs. The caller guarantees that every factor is representable in bf16 (features of a bf16
    backbone, 0/1 masks).
    """
    if device.type == "cuda":
        backend = torch.backends.cuda.matmul
        fast = "tf32"  # ten mantissa bits hold the seven of bf16
    else:
        backend = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        fast = "bf16"
    before = backend.fp32_precision
    backend.fp32_precision = fast
    try:
        yield
    finally:
        backend.fp32_precision = before
