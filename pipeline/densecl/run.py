"""A training run: from a source of photographs to a folder that can be resumed and exported."""

import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ...schemas.densecl import DenseCLConfig
from ...stages.densecl.checkpoint import CARD, check_new, check_same, read_card, read_skipped, write_card
from ...stages.densecl.train import Outcome, Progress, schedule, train
from ...stages.device import resolve_precision
from ...version import __version__
from ..sources import Source

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK")  # all 0 in the first of several processes, which run the same command


def run_densecl(
    source: Source,
    config: DenseCLConfig,
    out: Path,
    device: torch.device,
    *,
    resume: bool = False,
    processes: int = 1,
    stop: threading.Event | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    max_steps: int | None = None,
    trainer_options: dict[str, Any] | None = None,
) -> Outcome:
    """Start a run in `out`, or go on with the one there (`resume`); see `train` for the rest.

    Raises UserError if `out` holds a run and `resume` was not said, or holds another one.
    """
    refs = list(source.refs())
    digest = hashlib.sha256("\n".join(ref.file_name for ref in refs).encode("utf-8", "surrogateescape")).hexdigest()
    schedule(config, len(refs))
    precision = resolve_precision(config.train.precision, device)
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})
    first = not any(int(os.environ.get(name, "0")) for name in _RANKS)
    check_new(out, resume=resume)
    if (out / CARD).exists():
        card = read_card(out)
        check_same(card, config, digest)
    else:
        out.mkdir(parents=True, exist_ok=True)
        card = {
            "densecl_run": 1,
            "config": config.model_dump(mode="json"),
            "photos": source.description,
            "photos_count": len(refs),
            "photos_sha256": digest,
            "sessions": [],
        }
    session: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "version": __version__,
    }
    card["sessions"].append(session)
    if first:
        write_card(out, card)
    begin = time.monotonic()

    def told(progress: Progress) -> None:
        session.update(step=progress.step, seconds=round(time.monotonic() - begin, 1))
        card["last"] = {"step": progress.step, "epoch": progress.epoch, **progress.values}
        report(progress)

    try:
        return train(
            refs,
            config,
            out,
            device,
            processes=processes,
            stop=stop,
            report=told,
            max_steps=max_steps,
            trainer_options=trainer_options,
        )
    finally:
        card["skipped"] = len(read_skipped(out))
        if first:
            write_card(out, card)


def _cpu_name() -> str:
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"
