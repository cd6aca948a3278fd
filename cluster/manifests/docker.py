"""The container image that all other manifests run."""

from ...schemas.cluster_spec import ClusterSpec
from ...store.registered import WEIGHTS


def render_dockerfile(spec: ClusterSpec) -> dict[str, str]:
    """`Dockerfile`, to be built from the root of the repository; it carries the weights if they have a name."""
    entry = WEIGHTS.get(spec.job.weights or "")
    fetch = [f"RUN saliency-prompt weights fetch {entry.name}"] if entry is not None and entry.url else []
    user = spec.kuberay.run_as_user
    lines = [
        f"# docker build --file Dockerfile --tag {spec.image} ROOT_OF_THE_REPOSITORY",
        "FROM python:3.12-slim-bookworm",
        "",
        "# KubeRay's health checks call wget; torch's wheels bring CUDA, the node brings the driver.",
        "RUN apt-get update && apt-get install --yes --no-install-recommends wget procps \\",
        "    && rm -rf /var/lib/apt/lists/*",
        "ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \\",
        "    PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0",
        "",
        "COPY . /src",
        "RUN pip install --no-cache-dir '/src[cluster]' && rm -rf /src",
        "",
        f"RUN useradd --create-home --home-dir /worker --uid {user} --user-group worker",
        f"USER {user}:{user}",  # by number: Kubernetes cannot tell whether a name is root
        "WORKDIR /worker",
        *fetch,
    ]
    return {"Dockerfile": "\n".join(lines) + "\n", ".dockerignore": ".git\n.venv\n**/__pycache__\n"}
