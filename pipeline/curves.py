"""Learning curves of training runs as one figure (Saliency Prompt, Figures 3 and 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..schemas.errors import UserError
from ..store.run import CURVES, read_lines

Points = dict[int, float]  # value by step
Curves = dict[str, Points]  # of one run, by metric

_WANTED = ("loss", "val/AP", "val/AP_agnostic", "match_accuracy")  # what is shown unasked, in so far as it is there


def read_curves(run: Path) -> Curves:
    """What a run of `densecl`, `pretrain` or `finetune` has logged. A step that occurs twice counts as it came last.

    Lines that a killed process left unfinished are passed over. Raises UserError for a folder without curves.
    """
    if not (run / CURVES).is_file():
        raise UserError(f"{run} has no readable {CURVES}: give the folder of a training run.")
    curves: Curves = {}
    for values in read_lines(run / CURVES):
        step = values.pop("step")
        for name, value in values.items():
            curves.setdefault(name, {})[step] = value
    return curves


def draw_curves(groups: Mapping[str, Sequence[Curves]], out: Path, metrics: Sequence[str] = ()) -> list[str]:
    """Draw one panel for each metric and one line for each group of runs: their mean, and a band over all of them.

    Returns the metrics drawn: those asked for, or the usual ones that the runs have. The ending of `out` says the
    format (png, svg, pdf). Raises UserError for a metric that no run has,
    and for a file that cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("Curves need matplotlib: pip install 'saliency-prompt[train]'.") from None
    known = {name for runs in groups.values() for curves in runs for name in curves}
    if missing := sorted(set(metrics) - known):
        raise UserError(f"No run has logged {', '.join(missing)}: choose of {', '.join(sorted(known))}.")
    chosen = list(metrics) or [name for name in _WANTED if name in known]
    if not chosen:
        raise UserError("The runs have logged nothing yet: wait for their first entries.")
    figure = Figure(figsize=(5 * len(chosen), 3.6), layout="constrained")
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    for panel, metric in zip(panels, chosen, strict=True):
        for place, (label, runs) in enumerate(groups.items()):
            color = f"C{place}"
            panel.plot([], [], color=color, label=label)  # the legend names groups that lack this metric too
            steps, values = _common([curves[metric] for curves in runs if metric in curves])
            if not steps:
                continue
            panel.plot(steps, values.mean(0), color=color, linewidth=1.5, marker="." if len(steps) < 30 else "")
            if len(values) > 1:
                panel.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
        panel.set_xlabel("step")
        panel.set_title(metric.removeprefix("val/"), fontsize=10)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=120)
    except (OSError, ValueError) as error:
        raise UserError(f"{out} cannot be written ({error}): choose a .png, .svg or .pdf.") from None
    return chosen


def _common(runs: Sequence[Points]) -> tuple[list[int], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Steps that every run has, and the values there: [runs, steps]."""
    steps = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    return steps, np.array([[run[step] for step in steps] for run in runs], dtype=np.float64)
