"""Container images: the one that manifests run, and those for one machine in `docker/`, from one template."""

from collections.abc import Sequence
from typing import Literal

from ...schemas.cluster_spec import ClusterSpec
from ...store.registered import WEIGHTS

Kind = Literal["cpu", "gpu"]
IMAGES: dict[str, Kind] = {"docker/cpu.Dockerfile": "cpu", "docker/gpu.Dockerfile": "gpu"}
IGNORED = ".git\n.venv\n.mypy_link\nbuild\ndemo\n**/__pycache__\n"

_PIP = "RUN pip install --no-cache-dir --constraint /src/constraints.txt"
_INSTALL_TORCH: dict[Kind, tuple[str, ...]] = {
    "cpu": (
        "# Torch brings CUDA, which is large, unless its wheels for CPUs are taken: pytorch.org names their index.",
        "ARG CPU_WHEELS=",
        f"{_PIP} ${{CPU_WHEELS:+--index-url $CPU_WHEELS}} torch torchvision",
    ),
    "gpu": (
        "# Torch's wheels bring CUDA, the node brings the driver.",
        f"{_PIP} torch torchvision",
        "ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    ),
}


def dockerfile(
    kind: Kind, file: str, tag: str, extras: Sequence[str], *, user: int = 1000, weights: str | None = None
) -> str:
    """A Dockerfile, to be built from the root of the repository; it carries the weights if they are given by name.

    The program is installed with `extras`, in the versions of constraints.txt, and runs as `user`, not as root.
    """
    lines = [
        f"# docker build --file {file} --tag {tag} ROOT_OF_THE_REPOSITORY",
        "FROM python:3.11-slim-bookworm",
        "",
        "# KubeRay's health checks call wget.",
        "RUN apt-get update && apt-get install --yes --no-install-recommends wget procps \\",
        "    && rm -rf /var/lib/apt/lists/*",
        "ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0",
        "",
        "COPY constraints.txt /src/",
        *_INSTALL_TORCH[kind],
        "COPY . /src",
        f"{_PIP} '/src[{','.join(extras)}]' && rm -rf /src",
        "",
        f"RUN useradd --create-home --home-dir /worker --uid {user} --user-group worker",
        f"USER {user}:{user}",  # by number: Kubernetes cannot tell whether a name is root
        "WORKDIR /worker",
        *([f"RUN saliency-prompt weights fetch {weights}"] if weights else []),
    ]
    return "\n".join(lines) + "\n"


def render_dockerfile(spec: ClusterSpec) -> dict[str, str]:
    """`Dockerfile` of a cluster, with the weights of its job if they have a name."""
    entry = WEIGHTS.get(spec.job.weights or "")
    kind: Kind = "gpu" if spec.workers.gpus_per_worker else "cpu"
    weights = entry.name if entry is not None and entry.url else None
    user = spec.kuberay.run_as_user
    text = dockerfile(kind, "Dockerfile", spec.image, ["cluster"], user=user, weights=weights)
    return {"Dockerfile": text, ".dockerignore": IGNORED}


def render_images() -> dict[str, str]:
    """The files in `docker/`, and what both leave out: everything for one machine, and nothing of a cluster.

    They end in the program, so that `docker run --rm --volume "$PWD:/worker" TAG generate photos --out labels` works.
    """
    files = {
        file: dockerfile(kind, file, f"saliency-prompt:{kind}", ["demo", "report", "train"])
        + 'ENTRYPOINT ["saliency-prompt"]\n'
        for file, kind in IMAGES.items()
    }
    return {**files, ".dockerignore": IGNORED}
