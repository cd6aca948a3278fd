"""What all training loops tell lightning."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def find_processes(device: torch.device, processes: int) -> dict[str, Any]:
    """Trainer options for so many processes on this machine."""
    devices = [device.index or 0] if device.type == "cuda" and processes == 1 else processes
    if processes == 1:
        return {"accelerator": "gpu" if device.type == "cuda" else "cpu", "devices": devices}
    from lightning.pytorch.strategies import DDPStrategy

    # The queues are the same everywhere: sending them around at every step would be for nothing.
    strategy = DDPStrategy(broadcast_buffers=False, process_group_backend="nccl" if device.type == "cuda" else "gloo")
    return {"accelerator": "gpu" if device.type == "cuda" else "cpu", "devices": devices, "strategy": strategy}


@contextmanager
def quiet() -> Iterator[None]:
    """Without lightning's advice: it concerns things that are decided here on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
