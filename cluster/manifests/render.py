"""All files for one kind of cluster."""

from collections.abc import Callable
from pathlib import Path

from ...schemas.cluster_spec import ClusterSpec
from ...schemas.errors import UserError
from .docker import render_dockerfile
from .grafana import render_grafana
from .kuberay import render_kuberay
from .launcher import render_launcher
from .slurm import render_slurm

RENDERERS: dict[str, Callable[[ClusterSpec], dict[str, str]]] = {
    "kuberay": lambda spec: {**render_kuberay(spec), **render_dockerfile(spec), **render_grafana()},
    "slurm": lambda spec: {**render_slurm(spec), **render_grafana()},
    "launcher": lambda spec: {**render_launcher(spec), **render_dockerfile(spec), **render_grafana()},
}


def render(kind: str, spec: ClusterSpec, out: str) -> list[Path]:
    """Write the files for a kind of cluster into a folder. Raises UserError if the folder cannot be written."""
    files = RENDERERS[kind](spec)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}): choose another --out.") from None
    return [folder / name for name in files]
