"""A real data set of format 1, its photographs, and ways to read a data set to the end."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from makers import Maker
from saliency_prompt import PseudoLabelDataset
from saliency_prompt.pipeline.export.coco import export_coco
from saliency_prompt.pipeline.show import draw_dataset
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import ObjectStore, open_store

FIXTURES = Path(__file__).parents[1] / "store" / "fixtures"


@dataclass(frozen=True)
class Labelled:
    """A copy of the data set of format 1, as a program of before wrote it, of photographs that lie at `photos`."""

    path: Path
    photos: Path

    @property
    def url(self) -> str:
        return str(self.path)

    def train(self, **options: Any) -> list[Any]:
        """What a trainer gets: every image with its masks and vectors."""
        data = PseudoLabelDataset(self.url, vectors=("seed", "box_mean"), **options)
        return [flat(data[i]) for i in range(len(data))]

    def file(self, pattern: str) -> Path:
        (found,) = self.path.glob(pattern)
        return found

    def edit(self, pattern: str, **changes: Any) -> None:
        """Change fields of a JSON document; dots lead down."""
        path = self.file(pattern)
        content = json.loads(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            inner = content
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        path.write_text(json.dumps(content))


def flat(sample: Any) -> list[Any]:
    image, target = sample
    tensors = [image, target["masks"], target["boxes"], target["scores"], *target["vectors"].values()]
    return [target["image_id"], *(torch.as_tensor(one).numpy().tobytes() for one in tensors)]


def move_plan(path: Path, photos: Path) -> None:
    """Have a plan of format 1 say that its photographs lie elsewhere, as if it had been planned from there."""
    (file,) = path.glob("plan/*/inputs-00000.parquet")
    groups = pq.ParquetFile(file)
    tables = [groups.read_row_group(i) for i in range(groups.num_row_groups)]
    with pq.ParquetWriter(file, groups.schema_arrow, compression="zstd", use_dictionary=False) as writer:
        for table in tables:
            uris = pa.array([f"{photos}/{name}" for name in table["file_name"].to_pylist()])
            place = table.schema.get_field_index("uri")
            writer.write_table(table.set_column(place, table.schema.field(place), uris))
    (path / "dataset.json").write_text(
        (path / "dataset.json").read_text().replace('"source": "/photos"', f'"source": "{photos}"')
    )


@pytest.fixture
def old(tmp_path: Path) -> Labelled:
    """A data set of format 1 that a program of before wrote; without digests of card and plan."""
    labelled = Labelled(tmp_path / "data", tmp_path / "photos")
    shutil.copytree(FIXTURES / "format1", labelled.path)
    shutil.copytree(FIXTURES / "photos", labelled.photos)
    move_plan(labelled.path, labelled.photos)
    return labelled


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


@pytest.fixture
def local_store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "made"))


Reading = Callable[[str, Path], object]


def report(url: str, out: Path) -> object:
    from saliency_prompt.pipeline.report.page import write_report

    return write_report(Dataset.open(url), str(out / "report"))


def train(url: str, out: Path) -> object:
    del out
    data = PseudoLabelDataset(url, vectors=("seed", "box_mean"), allow_partial=True)
    return [data[i] for i in range(len(data))]


def check(url: str, out: Path) -> object:
    del out
    return verify(Dataset.open(url))


READERS: dict[str, Reading] = {
    "train": train,
    "show": lambda url, out: draw_dataset(Dataset.open(url), str(out / "show"), limit=99, seeds=True),
    "export": lambda url, out: export_coco(Dataset.open(url), str(out / "coco.json")),
    "report": report,
    "verify": check,
}
