"""What a result was measured on."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": str(capabilities.get("cpu_name", platform.processor())),
        "cpu_bf16": bool(capabilities.get("amx_bf16", False)),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{
            name: version(name)
            for name in ("torch", "numpy", "opencv-python-headless", "pyarrow", "zarr", "saliency-prompt")
        },
    }
