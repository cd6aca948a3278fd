"""The command line of the driver, the same in every manifest."""

import shlex
from collections.abc import Sequence

from ...schemas.cluster_spec import ClusterSpec


def generate_command(spec: ClusterSpec, address: str = "auto") -> list[str]:
    """`saliency-prompt generate` with all arguments, joining the Ray cluster at an address."""
    job, workers = spec.job, spec.workers
    options = {
        "--out": job.out,
        "--root": job.root,
        "--weights": job.weights,
        "--preset": job.preset,
        "--device": None if workers.gpus_per_worker else "cpu",
        "--ray": address,
        "--gpus-per-worker": f"{workers.gpus_per_worker:g}",
        "--cpus-per-worker": workers.cpus_per_worker,
        "--min-workers": workers.min_workers,
        "--max-workers": workers.max_workers,
    }
    given = [part for key, value in options.items() if value is not None for part in (key, str(value))]
    overrides = [part for override in job.overrides for part in ("--set", override)]
    return ["saliency-prompt", "generate", job.photos, *given, *overrides]


def shell(words: Sequence[str]) -> str:
    """Words as a line for a shell."""
    return shlex.join(words)
