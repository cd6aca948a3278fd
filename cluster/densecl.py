"""DenseCL training by a group of processes on a cluster."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from threading import Event

from ..pipeline.densecl.run import run_densecl
from ..pipeline.sources import open_source
from ..schemas.cluster import Workers
from ..schemas.densecl import DenseCLConfig
from ..stages.densecl.checkpoint import check_new
from ..stages.densecl.train import Outcome, Progress
from .train import Member, train_on_ray


def densecl_on_ray(
    photos: str,
    root: str | None,
    config: DenseCLConfig,
    out: Path,
    *,
    address: str,
    workers: Workers,
    resume: bool,
    stop: Event,
    report: Callable[[Progress], None] = lambda _: None,
    max_steps: int | None = None,
) -> Outcome:
    """`run_densecl` in `workers.min_workers` processes. Photographs and `out` must be visible to every node."""
    check_new(out, resume=resume)
    return train_on_ray(
        _member,
        address=address,
        workers=workers,
        run=out,
        stop=stop,
        report=lambda news: report(Progress(**news)),
        photos=photos if "://" in photos else str(Path(photos).expanduser().absolute()),
        root=root if root is None or "://" in root else str(Path(root).expanduser().absolute()),
        config=config,
        out=out.absolute(),
        max_steps=max_steps,
    )


def _member(
    member: Member, photos: str, root: str | None, config: DenseCLConfig, out: Path, max_steps: int | None
) -> Outcome:
    return run_densecl(
        open_source(photos, root),
        config,
        out,
        member.device,
        resume=True,
        processes=member.processes,
        stop=member.stop,
        report=lambda progress: member.tell(dataclasses.asdict(progress)),
        max_steps=max_steps,
        trainer_options=member.trainer_options,
    )
