"""A Grafana dashboard over the metrics that a run tells to Ray."""

import json
from typing import Any

from ..metrics import FAILED, IDLE, IMAGES, MASKS, QUARANTINED, QUEUE, RETRIES, SECONDS, WORKERS, Metric

Json = dict[str, Any]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def render_grafana() -> dict[str, str]:
    """`grafana-dashboard.json`, to be imported; it asks for the Prometheus that scrapes Ray's nodes."""
    rate = "[$__rate_interval]"
    panels = [
        _panel("Images per second", "none", (f"sum(rate({_series(IMAGES)}{rate}))", "images")),
        _panel("Masks per second", "none", (f"sum(rate({_series(MASKS)}{rate}))", "masks")),
        _panel("Shards that wait", "none", (f"max({_series(QUEUE)})", "waiting")),
        _panel("Workers", "none", (f"sum by (state) ({_series(WORKERS)})", "{{state}}")),
        _panel(
            "Trouble in this run",
            "none",
            (f"max({_series(RETRIES)})", "retries"),
            (f"max({_series(FAILED)})", "failed shards"),
            (f"sum({_series(QUARANTINED)})", "quarantined images"),
        ),
        _panel("Device idle share by worker", "percentunit", (_series(IDLE), "{{WorkerId}}")),
        _panel(
            "Thread seconds per second by step", "s", (f"sum by (step) (rate({_series(SECONDS)}{rate}))", "{{step}}")
        ),
        _panel("GPU use by node", "percent", ("ray_node_gpus_utilization", "{{instance}} {{GpuIndex}}")),
    ]
    for index, panel in enumerate(panels):
        panel |= {"id": index + 1, "gridPos": {"h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index // 2)}}
    dashboard = {
        "title": "saliency-prompt",
        "uid": "saliency-prompt",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return {"grafana-dashboard.json": json.dumps(dashboard, indent=2) + "\n"}


def _series(metric: Metric) -> str:
    """A metric as Prometheus sees it."""
    return f"ray_{metric.name}" + ("_total" if metric.kind == "Counter" else "")


def _panel(title: str, unit: str, *queries: tuple[str, str]) -> Json:
    targets = [
        {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
        for i, (expr, legend) in enumerate(queries)
    ]
    defaults = {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }
