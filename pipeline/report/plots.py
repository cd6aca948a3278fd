"""Plots as SVG that takes its colours from the page, so that light and dark need one picture."""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...schemas.errors import UserError
from ...schemas.report import Histogram, ReportData, Shift

FEW = 10  # values below which a distribution has no shape, and no plot
_INK, _FIRST, _SECOND = "#010203", "#040506", "#070809"
_COLORS = {_INK: "currentColor", _FIRST: "var(--first)", _SECOND: "var(--second)"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


def histogram_svg(first: Histogram, second: Histogram | None = None) -> str:
    """One distribution, or two over each other as shares."""
    figure, axes = _figure(3.4, 2.1)
    edges = np.array(first.edges)
    shown = slice(0, _last(first, second))
    for values, color in ((first, _FIRST), (second, _SECOND)):
        if values is not None:
            share = np.array(values.counts) / max(1, values.total)
            axes.stairs(share[shown], edges[: len(share[shown]) + 1], color=color, fill=second is None, linewidth=1.4)
    if first.log:
        axes.set_xscale("log")
    axes.set_xlabel(first.unit)
    axes.set_ylabel("share")
    return _svg(figure)


def heat_svg(heat: Sequence[Sequence[float]]) -> str:
    """Where boxes have their centres, as if all images were squares."""
    figure, axes = _figure(2.4, 2.1)
    table = np.array(heat)
    peak = table.max() or 1
    for y, x in zip(*np.nonzero(table), strict=True):
        axes.add_patch(_square(x, y, float(table[y, x] / peak)))
    axes.set(xlim=(0, table.shape[1]), ylim=(table.shape[0], 0), xticks=[], yticks=[], aspect="equal")
    for spine in axes.spines.values():
        spine.set_visible(True)
    return _svg(figure)


def timeline_svg(shifts: Sequence[Shift]) -> str:
    """Which worker computed a shard when."""
    workers = sorted({shift.worker for shift in shifts})[:40]
    figure, axes = _figure(7, 0.6 + 0.22 * max(3, len(workers)))
    for row, worker in enumerate(workers):
        bars = [(shift.start, max(shift.end - shift.start, 1e-3)) for shift in shifts if shift.worker == worker]
        axes.broken_barh(bars, (row - 0.35, 0.7), facecolors=_FIRST, edgecolors=_INK, linewidth=0.4, alpha=0.6)
    axes.set_yticks(range(len(workers)), workers)
    axes.set_xlabel("seconds since the first shard began")
    return _svg(figure)


def throughput_svg(shifts: Sequence[Shift]) -> str:
    """Images per second over time: every shard's images spread over the time it took."""
    end = max(shift.end for shift in shifts)
    edges = np.linspace(0, max(end, 1e-3), 61)
    rate = np.zeros(60)
    for shift in shifts:
        overlap = np.minimum(edges[1:], shift.end) - np.maximum(edges[:-1], shift.start)
        rate += shift.images * overlap.clip(0) / max(shift.end - shift.start, 1e-3)
    figure, axes = _figure(7, 1.8)
    axes.stairs(rate / np.diff(edges), edges, color=_FIRST, fill=True)
    axes.set_xlabel("seconds since the first shard began")
    axes.set_ylabel("images/s")
    return _svg(figure)


def steps_svg(steps: dict[str, float], images: int) -> str:
    """Thread time of each step for an image."""
    figure, axes = _figure(3.4, 1.6)
    names = list(steps)[::-1]
    axes.barh(names, [1e3 * steps[name] / max(1, images) for name in names], color=_FIRST)
    axes.set_xlabel("ms of thread time an image")
    return _svg(figure)


def overview_svgs(data: ReportData, other: ReportData | None = None) -> dict[str, str]:
    """The plots of a report that say something, by title; over those of another report if there is one."""
    found = {}
    for name, histogram in data.histograms.items():
        second = None if other is None else other.histograms[name]
        if histogram.total >= FEW or (second is not None and second.total >= FEW):
            found[histogram.title] = histogram_svg(histogram, second)
    if other is not None:
        return found
    if data.histograms["score"].total >= FEW:
        found["Box centres"] = heat_svg(data.heat)
    if data.steps:
        found["Time per step"] = steps_svg(data.steps, data.totals.images)
    if len(data.shifts) > 1:
        found["Throughput"] = throughput_svg(data.shifts)
        found["Workers"] = timeline_svg(data.shifts)
    return found


def _last(first: Histogram, second: Histogram | None) -> int:
    """Bins worth showing of a linear histogram of counts: up to the last that holds anything."""
    if first.unit != "masks":
        return len(first.counts)
    used = [i for h in (first, second) if h is not None for i, count in enumerate(h.counts) if count]
    return max(used, default=0) + 2


def _square(x: int, y: int, opacity: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, color=_FIRST, alpha=opacity, linewidth=0)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        import matplotlib as mpl
    except ImportError:
        raise UserError("Reports need matplotlib and jinja2: pip install 'saliency-prompt[report]'.") from None
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for sentinel, color in _COLORS.items():
        text = text.replace(sentinel, color)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )
