"""What the training loop tells lightning."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def find_processes(device: torch.device, processes: int) -> dict[str, Any]:
    """Trainer options for so many processes on this machine."""
    devices = [device.index or 0] if device.type == "cuda" and processes == 1 else processes
    if processes == 1:
        return {"accelerator": "gpu" if device.type == "cuda" else "cpu", "devices": devices}
    from lightning.pytorch.strategies import DDPStrategy

    # Buffers are the same everywhere: sending them around at every step would be for nothing.
    strategy = DDPStrategy(broadcast_buffers=False, process_group_backend="nccl" if device.type == "cuda" else "gloo")
    return {"accelerator": "gpu" if device.type == "cuda" else "cpu", "devices": devices, "strategy": strategy}


def make_trainer(
    run: Path, callbacks: list[lightning.Callback], precision: str, where: dict[str, Any], **more: Any
) -> lightning.Trainer:
    """A trainer that leaves data, checkpoints and progress to `callbacks`; `where` is as `find_processes` gives it."""
    return lightning.Trainer(
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        max_epochs=1,  # lightning's epoch is one call: ours are counted in steps, so that any step can be resumed
        logger=TensorBoardLogger(run, name="", version="curves"),
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        **where,
        **more,
    )


def out_of_memory(error: Exception) -> bool:
    """Whether an error of torch says that there is not enough memory, of a device or of the host."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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
