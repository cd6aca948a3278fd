"""What a result was measured on, and where it is written."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from saliency_prompt.stages.device import resolve_precision


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": str(capabilities.get("cpu_name", platform.processor())),
        "cpu_bf16": resolve_precision("auto", torch.device("cpu")) == "bf16",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{
            name: version(name)
            for name in ("torch", "numpy", "opencv-python-headless", "pyarrow", "zarr", "saliency-prompt")
        },
    }


def publish(result: dict[str, Any], path: Path | None) -> None:
    """Print a result, and write it to `path` if there is one."""
    text = json.dumps(result, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")
