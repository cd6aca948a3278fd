"""A data set as a folder of parquet that Hugging Face's `load_dataset` reads, photographs inside."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ...store.dataset import Dataset
from .choice import EVERYTHING, Choice
from .photographs import Photographs
from .stream import Photo, Selected
from .target import ExportReport, whole_folder

FILE_BYTES = 500_000_000  # of photographs in one file, as the hub likes them
GROUP_BYTES = 50_000_000  # of photographs in one row group: what a reader holds at once

_LISTS = {
    "bbox": pa.list_(pa.list_(pa.float32(), 4)),
    "segmentation": pa.list_(pa.string()),
    "area": pa.list_(pa.int64()),
    "category": pa.list_(pa.int64()),
    "score": pa.list_(pa.float32()),
}


def export_hugging_face(
    dataset: Dataset, path: str, choice: Choice = EVERYTHING, *, class_names: Sequence[str] = ()
) -> ExportReport:
    """Write `data/SPLIT-00000.parquet` and so on, and a `README.md` that names the parts.

    A row is a photograph (its file's bytes), its size, and `objects`: boxes XYWH in pixels, COCO compressed RLEs of
    the photograph's size, areas, categories, scores. Photographs that are gone are left out. Raises UserError.
    """
    selected = Selected(dataset, choice, class_names)
    photographs = Photographs(dataset, "none")
    schema = _schema(selected.class_names)
    images = annotations = 0
    with whole_folder(path) as folder:
        (folder / "data").mkdir()
        for part, split in enumerate(choice.splits):
            rows = _rows(selected, photographs, part)
            counted = _write(folder / "data", split, rows, schema)
            images, annotations = images + counted[0], annotations + counted[1]
        photographs.refuse_none(images)
        (folder / "README.md").write_text(_readme(choice.splits, selected.root_hash), encoding="utf-8")
    photographs.tell()
    return ExportReport(images, annotations, selected.quarantined, (Path(path),), photographs.absent)


def _rows(selected: Selected, photographs: Photographs, part: int) -> Iterator[dict[str, Any]]:
    for photo in selected.photos(part=part):
        data = photographs.read(photo)
        if data is not None:
            yield {
                "image": {"bytes": data, "path": photo.ref.file_name},
                "image_id": photo.number,
                "file_name": photo.ref.file_name,
                "width": photo.width,
                "height": photo.height,
                "objects": _objects(photo),
            }


def _objects(photo: Photo) -> dict[str, list[Any]]:
    return {
        "bbox": [one.bbox for one in photo.instances],
        "segmentation": [one.counts.decode("ascii") for one in photo.instances],
        "area": [one.area for one in photo.instances],
        "category": [one.label for one in photo.instances],
        "score": [one.score for one in photo.instances],
    }


def _write(folder: Path, split: str, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> tuple[int, int]:
    """Files of about FILE_BYTES, at least one; how many photographs and masks they hold."""
    images = annotations = files = 0
    held: list[dict[str, Any]] = []
    group_bytes = file_bytes = 0
    with ExitStack() as open_file:

        def start() -> pq.ParquetWriter:
            open_file.close()
            where = folder / f"{split}-{files:05d}.parquet"
            return open_file.enter_context(pq.ParquetWriter(where, schema, compression="zstd"))

        writer, files = start(), 1
        for row in rows:
            held.append(row)
            group_bytes += len(row["image"]["bytes"])
            images, annotations = images + 1, annotations + len(row["objects"]["score"])
            if group_bytes < GROUP_BYTES:
                continue
            writer.write_table(pa.Table.from_pylist(held, schema))
            file_bytes, group_bytes, held = file_bytes + group_bytes, 0, []
            if file_bytes >= FILE_BYTES:
                writer, files, file_bytes = start(), files + 1, 0
        if held or not images:
            writer.write_table(pa.Table.from_pylist(held, schema))
    return images, annotations


def _schema(class_names: Sequence[str]) -> pa.Schema:
    """Columns, and in the metadata what `datasets` makes of them."""

    def value(kind: str) -> dict[str, Any]:
        return {"dtype": kind, "_type": "Value"}

    def several(feature: dict[str, Any], **more: int) -> dict[str, Any]:
        return {"feature": feature, **more, "_type": "Sequence"}

    features = {
        "image": {"_type": "Image"},
        "image_id": value("int64"),
        "file_name": value("string"),
        "width": value("int32"),
        "height": value("int32"),
        "objects": {
            "bbox": several(several(value("float32"), length=4)),
            "segmentation": several(value("string")),
            "area": several(value("int64")),
            "category": several({"names": list(class_names), "_type": "ClassLabel"}),
            "score": several(value("float32")),
        },
    }
    fields = [
        pa.field("image", pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        pa.field("image_id", pa.int64()),
        pa.field("file_name", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("objects", pa.struct(_LISTS)),
    ]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _readme(splits: Sequence[str], root_hash: str | None) -> str:
    files = [{"split": name.replace("val", "validation"), "path": f"data/{name}-*"} for name in splits]
    front = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    return (
        f"---\n{front}---\n\nPseudo-labels for instance segmentation, made by saliency-prompt "
        f"(root hash {root_hash or 'none: the data set is not complete'}).\n\n"
        "`objects.segmentation` holds COCO compressed RLEs: "
        '`pycocotools.mask.decode({"size": [height, width], "counts": text})`.\n'
    )
