"""From a data set to a folder of pages that opens from disk: index.html, its script and style, photographs, numbers."""

import json
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...schemas.errors import UserError
from ...schemas.report import ReportData
from ...store.dataset import Dataset
from ...store.objects import open_store
from ...version import __version__
from ..evaluate import evaluate_dataset
from ..show import Drawing
from .collect import collect
from .compare import compare_image, summarise
from .gallery import describe_masks, thumbnail_side, write_photographs
from .plots import FEW, overview_svgs
from .sample import Sampled, find_images, sample_images
from .truth import truth_of

CHUNK = 50  # images whose outlines load together
EVALUATED_IMAGES = 20_000  # accuracy of more is `evaluate`'s work


@dataclass(frozen=True, slots=True)
class Report:
    """What was written: the page, its numbers, and photographs that could not be shown, with reasons."""

    page: str
    data: ReportData
    sampled: int
    missing: list[tuple[str, str]]


def write_report(
    dataset: Dataset,
    out: str,
    *,
    sample: int = 200,
    seed: int = 0,
    other: Dataset | None = None,
    gt: Path | None = None,
) -> Report:
    """Write the report of a data set into a folder or bucket; beside another data set, and over ground truth, if given.

    Anything that cannot be shown is named in the report rather than ending it.
    """
    if "://" not in out:
        return _write(dataset, Path(out), out, sample, seed, other, gt)
    import tempfile

    store = open_store(out, create=True)
    with tempfile.TemporaryDirectory(prefix="report") as temporary:
        report = _write(dataset, Path(temporary), out.rstrip("/"), sample, seed, other, gt)
        for path in sorted(Path(temporary).rglob("*")):
            if path.is_file():
                store.put(path.relative_to(temporary).as_posix(), path.read_bytes())
    return report


def _write(
    dataset: Dataset, folder: Path, url: str, sample: int, seed: int, other: Dataset | None, gt: Path | None
) -> Report:
    data = collect(dataset, seed)
    if gt is not None and data.n_images <= EVALUATED_IMAGES:
        data = data.model_copy(update={"accuracy": evaluate_dataset(dataset, gt)})
    second = None if other is None else collect(other, seed)
    samples = sample_images(dataset, sample, seed)
    drawing = Drawing.of(dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        troubles = write_photographs(
            samples, dataset.card.source, drawing.decode, folder / "images", thumbnail_side(len(samples))
        )
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}): choose another --out.") from None
    truths = [None] * len(samples) if gt is None else truth_of(samples, gt)
    items = [
        _item(index, sampled, trouble, describe_masks(sampled, drawing))
        for index, (sampled, trouble) in enumerate(zip(samples, troubles, strict=True))
    ]
    for item, truth in zip(items, truths, strict=True):
        if truth is not None:
            item["truth"] = truth
            item["missed"] = sum(not one["iou"] for one in truth)
    comparison = None if other is None else _compare(items, samples, other)
    missing = [
        (sampled.row["file_name"], trouble)
        for sampled, trouble in zip(samples, troubles, strict=True)
        if trouble and sampled.row["status"] != "quarantined"
    ]
    _write_items(folder / "data", items)
    (folder / "report.json").write_bytes(data.to_json())
    _write_page(folder, data, second, comparison, missing, len(items))
    return Report(f"{url}/index.html" if "://" in url else str(folder / "index.html"), data, len(items), missing)


def _item(index: int, sampled: Sampled, trouble: str, masks: list[dict[str, Any]]) -> dict[str, Any]:
    row = sampled.row
    return {
        "id": str(row["image_id"]),  # as text: JavaScript's numbers end at 2^53
        "name": row["file_name"],
        "status": row["status"],
        "trouble": trouble,
        "src": "" if trouble else f"images/{index:05d}.jpg",
        "w": row["width"],
        "h": row["height"],
        "masks": masks,
    }


def _compare(items: list[dict[str, Any]], samples: list[Sampled], other: Dataset) -> dict[str, Any]:
    drawing = Drawing.of(other)
    there = find_images(other, {sampled.row["file_name"] for sampled in samples})
    seconds = [there.get(sampled.row["file_name"]) for sampled in samples]
    compared = [compare_image(a, b) for a, b in zip(samples, seconds, strict=True)]
    for item, second, change in zip(items, seconds, compared, strict=True):
        item["change"] = change
        item["other"] = None if second is None else describe_masks(second, drawing)
    return summarise(compared, samples, seconds) | {"url": other.url}


def _write_items(folder: Path, items: list[dict[str, Any]]) -> None:
    """Outlines in files of CHUNK images, and what sorting and filtering needs of all in one.

    Scripts rather than JSON, since a page from disk may load nothing else.
    """
    folder.mkdir(exist_ok=True)
    brief = []
    for index, item in enumerate(items):
        short = {key: item[key] for key in ("id", "name", "status", "src", "w", "h", "trouble")}
        short |= {
            "n": len(item["masks"]),
            "score": max((m["score"] for m in item["masks"]), default=0),
            "area": max((m["area"] for m in item["masks"]), default=0),
            "chunk": index // CHUNK,
            "changed": item["change"]["changed"] if "change" in item else None,
            "missed": item.get("missed"),
            "said": [one["text"] for mask in item["masks"] for one in mask.get("texts", ())],
        }
        brief.append(short)
    (folder / "index.js").write_text(f"window.IMAGES = {_script(brief)};\n", encoding="ascii")
    for start in range(0, len(items), CHUNK):
        part = {
            item["id"]: {k: item.get(k) for k in ("masks", "other", "change", "truth")}
            for item in items[start : start + CHUNK]
        }
        text = f"window.loaded({start // CHUNK}, {_script(part)});\n"
        (folder / f"images-{start // CHUNK:04d}.js").write_text(text, encoding="ascii")


def _write_page(
    folder: Path,
    data: ReportData,
    second: ReportData | None,
    comparison: dict[str, Any] | None,
    missing: list[tuple[str, str]],
    sampled: int,
) -> None:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise UserError("Reports need matplotlib and jinja2: pip install 'saliency-prompt[report]'.") from None
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["yaml"] = _yaml
    page = environment.get_template("report.html.j2").render(
        data=data,
        second=second,
        comparison=comparison,
        missing=missing,
        sampled=sampled,
        plots=overview_svgs(data),
        compared_plots={} if second is None else overview_svgs(data, second),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        version=__version__,
        few=FEW,
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    for name in ("report.css", "report.js"):
        (folder / name).write_bytes((files(__package__) / "templates" / name).read_bytes())


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False)


def _script(value: Any) -> str:
    """JSON that is safe inside a script, in ASCII."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
