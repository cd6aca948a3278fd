"""Which device computes, in which arithmetic."""

import torch

from ..schemas.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """Arithmetic that `auto` stands for: bf16 where the hardware computes it, else fp32 (fp16 on older GPUs)."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    """Whether torch has instructions for it (Intel's AMX, or AVX-512): without, bf16 is many times slower than fp32."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("amx_bf16", False) or known.get("avx512_bf16", False))


def automatic(device: torch.device) -> dict[str, str | int]:
    """What `auto` values of a producer's configuration stand for on a device (`section.auto` names them)."""
    return {"precision": resolve_precision("auto", device), "batch_size": 4 if device.type == "cpu" else 16}


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1`; UserError if the machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"There is no device {name!r}: take auto, cpu, cuda or cuda:INDEX.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"This machine has {count} CUDA devices, not {name}: take --device cpu or another index.")
        return torch.device("cuda", device.index or 0)
    return device
