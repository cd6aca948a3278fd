"""Pre-training and fine-tuning by a group of processes on a cluster."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from ..pipeline.instances import jobs
from ..schemas.cluster import Workers
from ..stages.densecl.checkpoint import check_new
from ..stages.instances.train import Progress
from .train import Member, train_on_ray

_PATHS = ("url", "images", "gt", "start", "val_images", "val_gt", "weights")


def train_instances_on_ray(
    job: str,
    arguments: dict[str, Any],
    *,
    address: str,
    workers: Workers,
    resume: bool,
    stop: Event,
    report: Callable[[Progress], None] = lambda _: None,
    max_steps: int | None = None,
) -> Any:
    """`pretrain` or `finetune` in `workers.min_workers` processes; every node must see all paths."""
    out: Path = arguments["out"].absolute()
    check_new(out, resume=resume)
    paths = {
        name: str(Path(value).absolute())
        for name in _PATHS
        if isinstance(value := arguments.get(name), str) and "://" not in value and Path(value).exists()
    }
    return train_on_ray(
        _member,
        address=address,
        workers=workers,
        run=out,
        stop=stop,
        report=lambda news: report(Progress(**news)),
        job=job,
        job_arguments={**arguments, **paths, "out": out},
        max_steps=max_steps,
    )


def _member(member: Member, job: str, job_arguments: dict[str, Any], max_steps: int | None) -> Any:
    loop = jobs.Loop(
        member.device,
        resume=True,
        processes=member.processes,
        stop=member.stop,
        report=lambda progress: member.tell(dataclasses.asdict(progress)),
        max_steps=max_steps,
        trainer_options=member.trainer_options,
    )
    return getattr(jobs, job)(**job_arguments, loop=loop)
