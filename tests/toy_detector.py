"""A detector that finds the three colours of a photograph, and a folder that stands for its training run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saliency_prompt.models.backbones.base import Backbone
from saliency_prompt.models.detector import Detector, Found, Limits, Size
from saliency_prompt.schemas.errors import UserError

CPU = torch.device("cpu")


class ToyBackbone(Backbone):
    """Means of patches of 4x4 pixels, through a network of one layer."""

    mean = (120.0, 110.0, 100.0)
    std = (60.0, 61.0, 62.0)

    def __init__(self) -> None:
        super().__init__()
        self.strides, self.channels = {"c2": 4}, {"c2": 3}
        self.mix = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        with torch.no_grad():
            self.mix.weight.zero_()
            for channel in range(3):
                self.mix.weight[channel, channel] = 1 / 16

    def forward(self, images_B3HW: Tensor, level: str = "c2") -> dict[str, Tensor]:
        return {level: self.mix(images_B3HW)}


class ToyDetector(Detector):
    """One instance per channel: where it is stronger than `level`; its score is the mean there."""

    num_classes = 3

    def __init__(self, level: float = 0.3, *, boxed: bool = False) -> None:
        super().__init__()
        self.backbone = ToyBackbone()
        self.level, self.boxed = level, boxed

    def find(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Found]:
        maps_B3hw = (4 * (self.backbone(images_B3HW, "c2")["c2"].float() - self.level)).sigmoid()
        return [self._found(maps, size, limits) for maps, size in zip(maps_B3hw, sizes, strict=True)]

    def _found(self, maps_3hw: Tensor, size: Size, limits: Limits) -> Found:
        inside = maps_3hw[:, : -(-size[0] // 4), : -(-size[1] // 4)]
        binary = (inside > 0.5).float()
        score = (inside * binary).sum((1, 2)) / binary.sum((1, 2)).clamp_min(1)
        order = score.sort(descending=True, stable=True).indices[: limits.most]
        order = order[score[order] >= limits.min_score]
        maps, boxes = maps_3hw[order], None
        if self.boxed:  # the middle of the image alone
            box = torch.tensor([size[1] / 4, size[0] / 4, size[1] * 3 / 4, size[0] * 3 / 4])
            boxes = box.expand(len(order), 4)
            maps = F.interpolate(maps[None], (28, 28), mode="bilinear")[0]
        means = (inside * binary).flatten(1).mean(1)[order]
        return Found(maps, score[order], order, order, boxes, vectors=torch.stack([means, means + 1], dim=1))

    def class_layers(self) -> list[str]:
        return []


def write_run(folder: Path, level: float = 0.3) -> Path:
    """What `open_toy` opens."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.json").write_text(json.dumps({"level": level}))
    return folder


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRun:
    """A detector as a run gives it."""

    module: Detector
    name: str
    sha256: str
    size: tuple[int, int]


def open_toy(folder: Path) -> TrainedRun:
    """A toy detector from its folder, as `open_run` opens a trained one."""
    try:
        text = (folder / "toy.json").read_text()
    except OSError:
        raise UserError(f"{folder} holds no toy: write one.") from None
    module = ToyDetector(json.loads(text)["level"]).eval().requires_grad_(False)
    return TrainedRun(module, str(folder), hashlib.sha256(text.encode()).hexdigest(), (96, 192))


def install() -> None:
    """Have `generate --model` open toys, in this process."""
    from saliency_prompt.pipeline.training import model
    from saliency_prompt.store.run import Run

    model.load_detector = open_toy  # type: ignore[assignment]
    Run.read_card = lambda _: SimpleNamespace(model="toy")  # type: ignore[method-assign, assignment, return-value]
