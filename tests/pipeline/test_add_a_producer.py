"""The recipe "add a producer" of docs/architecture.md, followed: a producer of one rectangle per photograph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pydantic import Field

from saliency_prompt.schemas.labels.base import LabelConfig
from saliency_prompt.schemas.records import ImageRecord, ImageRef, MaskSet
from saliency_prompt.schemas.registry import PRODUCERS, ProducerSpec
from saliency_prompt.schemas.section import Section, auto
from saliency_prompt.stages.decode import DecodedImage
from saliency_prompt.stages.pixels import Shape
from saliency_prompt.stages.producers.contract import Admit, PixelBatch
from saliency_prompt.stages.producers.registry import LOADERS
from saliency_prompt.store.check import verify

ROOT = Path(__file__).parents[2]


class BoxConfig(Section):
    """The rectangle."""

    share: float = Field(0.5, gt=0, le=1, description="Its sides, as fractions of the image's.")
    batch_size: int = Field(0, ge=0, description="Images at once.", json_schema_extra=auto("batch_size"))


class BoxesConfig(LabelConfig):
    """The whole configuration."""

    box: BoxConfig = BoxConfig()

    @property
    def compression_level(self) -> int:
        return 1

    @property
    def batch_size(self) -> int:
        return self.box.batch_size

    @property
    def words(self) -> str:
        return "boxes"


@dataclass
class Brightness:
    """What a forward pass gives: the mean of each image [B]."""

    means: list[float]

    def wait(self) -> None: ...


class Boxes:
    """The producer."""

    memory_key = "box.batch_size"

    def __init__(self, config: BoxesConfig, admit: Admit, device: torch.device) -> None:
        self.device, self.batch_size, self.decode, self.admit = device, config.batch_size, config.decode, admit
        self.closed = False
        self._share = config.box.share

    def forward(self, batch: PixelBatch) -> Brightness:
        return Brightness(batch.pixels.float().mean((1, 2, 3)).tolist())

    def record(self, work: Brightness, i: int, ref: ImageRef, image: DecodedImage) -> ImageRecord:
        mask = np.zeros((image.height, image.width), np.uint8, order="F")
        mask[: int(image.height * self._share), : int(image.width * self._share)] = 1
        rle = coco_mask.encode(mask)
        masks = MaskSet(
            counts=[rle["counts"]],
            bbox=coco_mask.toBbox([rle]).astype(np.float32),
            area=coco_mask.area([rle]).astype(np.int64),
            score=np.ones(1, np.float32),
            source="boxes",
            extra={"brightness": [work.means[i]], "words": [["upper", "left"]]},
        )
        facts = {"width": image.width, "height": image.height, "sha256": image.sha256, "masks": masks}
        return ImageRecord(ref.image_id, ref.file_name, "ok", **facts)

    def close(self) -> None:
        self.closed = True


class LoadedBoxes:
    """It has no weights."""

    weights, weights_sha256 = "boxes 1", "1" * 64
    facts: dict[str, Any] = {}  # noqa: RUF012

    def admission(self, _: BoxesConfig) -> Admit:
        def admit(image: DecodedImage) -> Shape:
            return image.pixels.shape[0], image.pixels.shape[1]

        return admit

    def build(self, config: BoxesConfig, device: torch.device) -> Boxes:
        return Boxes(config, self.admission(config), device)


def test_a_producer_is_three_classes_and_two_lines(world, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"brightness": "float32", "words": "list<string>"}
    spec = ProducerSpec("one rectangle", BoxesConfig, {"boxes": {}}, columns, "nothing", "")
    monkeypatch.setitem(PRODUCERS, "boxes", spec)
    monkeypatch.setitem(LOADERS, "boxes", lambda _config, _trained: LoadedBoxes())
    config = BoxesConfig().model_copy(update={"decode": world.config().decode})
    monkeypatch.setattr(world, "config", lambda *_: config)
    dataset, report = world.run(photos, "out")
    assert report.shards_left == 0
    assert verify(dataset).problems == []
    assert (dataset.card.producer, dataset.card.format_version) == ("boxes", 2)
    assert dataset.card.config["box"]["batch_size"] == 4  # what `auto` stands for on a CPU
    rows = [row for commit in dataset.commits() for row in dataset.read_shard(commit).masks.to_pylist()]
    assert len(rows) == 10
    assert all(row["words"] == ["upper", "left"] and row["brightness"] > 0 for row in rows)


def test_the_recipe_names_what_there_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    recipe = text[text.index("## Add a producer") :].split("\n## ")[0]
    for name in ("LabelConfig", "PRODUCERS", "LOADERS", "Loaded", "admit", "forward", "record", "mask_columns"):
        assert f"`{name}`" in recipe, name
