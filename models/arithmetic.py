"""Which units compute a matrix product."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

INT8_UNITS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx_vnni_int8")


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


def intersections(masks_BMK: Tensor) -> Tensor:
    """Cells that each two masks have in common: 0/1 fp32 [B, M, K] -> whole numbers in fp32 [B, M, M].

    Both ways are exact. Where a processor multiplies bytes, they take a third of the time of bf16 (benchmarks/nms.py).
    """
    if masks_BMK.device.type == "cpu" and masks_BMK.numel() and _cpu_multiplies_bytes():
        bytes_BMK = masks_BMK.to(torch.int8)
        return torch.stack([torch._int_mm(one, one.t()) for one in bytes_BMK]).float()
    with exact_bf16_products(masks_BMK.device):
        return torch.bmm(masks_BMK, masks_BMK.transpose(1, 2))


@lru_cache(maxsize=1)
def _cpu_multiplies_bytes() -> bool:
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in INT8_UNITS)
