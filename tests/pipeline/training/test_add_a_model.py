"""`docs/architecture.md`, "Add a model", followed to the letter with a detector that fits on a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from saliency_prompt.models import registry as models
from saliency_prompt.models.backbones.base import Backbone
from saliency_prompt.models.detector import Average, Detector, Found, Limits, Size, Targets
from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.pipeline.training.model import load_detector
from saliency_prompt.schemas.training import registry as schemas
from saliency_prompt.schemas.training.sections import DetectorSection, SupervisedConfig
from training_runs import CPU, train


# 1. schemas/training/NAME.py: the settings of its own
class BlobSection(DetectorSection):
    host: Literal["blob"] = Field("blob", description="Which model.")
    width: int = Field(16, ge=4, le=256, description="Channels of its layer.")


class BlobTraining(SupervisedConfig):
    model: BlobSection = BlobSection()


# 2. models/NAME/: a Detector
class Blob(Detector):
    """Finds one object: whatever stands out at stride 4."""

    def __init__(self, backbone: Backbone, num_classes: int, width: int) -> None:
        super().__init__()
        self.backbone, self.num_classes, self.most = backbone, num_classes, num_classes
        self.layer = nn.Conv2d(backbone.channels["c2"], width, 3, padding=1)
        self.mask = nn.Conv2d(width, 1, 1)
        self.classes = nn.Linear(width, num_classes)

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.layer(self.backbone(images_B3HW, "c2")["c2"]).relu()
        return self.mask(seen)[:, 0], self.classes(seen.mean((2, 3)))

    def losses(
        self,
        images_B3HW: Tensor,
        sizes: Sequence[Size],  # noqa: ARG002
        targets: Sequence[Targets],
        average: Average,
    ) -> dict[str, Tensor]:
        masks_Bhw, classes_BK = self(images_B3HW)
        wanted, labels = torch.zeros_like(masks_Bhw), torch.zeros_like(classes_BK)
        for image, target in enumerate(targets):
            if len(target.labels):
                union = target.masks.amax(0)[None, None].float()
                wanted[image] = F.interpolate(union, masks_Bhw.shape[1:], mode="area")[0, 0]
                labels[image, target.labels] = 1
        count = average(masks_Bhw.new_tensor(float(len(targets))))
        return {
            "mask": F.binary_cross_entropy_with_logits(masks_Bhw, wanted) * len(targets) / count,
            "class": F.binary_cross_entropy_with_logits(classes_BK, labels, reduction="sum") / count,
        }

    def find(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Found]:  # noqa: ARG002
        masks_Bhw, classes_BK = self(images_B3HW)
        found = []
        for mask_hw, scores_K in zip(masks_Bhw.sigmoid(), classes_BK.sigmoid(), strict=True):
            best = scores_K.topk(min(limits.most, self.num_classes))
            labels = best.indices[best.values >= limits.min_score]
            maps = mask_hw.expand(len(labels), -1, -1)
            found.append(Found(maps, scores_K[labels], labels, torch.zeros_like(labels)))
        return found

    def class_layers(self) -> list[str]:
        return ["classes."]


def build_blob(config: SupervisedConfig, backbone: Backbone, num_classes: int) -> Detector:
    assert isinstance(config, BlobTraining)
    return Blob(backbone, num_classes, config.model.width)


@pytest.fixture
def blob(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3. one line in each of two registries
    tiny = {"data": {"batch_size": 4, "short_side": 64, "long_side": 96, "workers": 0}, "trainer": {"lr_batch": 4}}
    monkeypatch.setitem(schemas.MODELS, "blob", schemas.ModelSpec("a blob", BlobTraining, {"tiny": tiny}))
    monkeypatch.setitem(models.DETECTORS, "blob", build_blob)


@pytest.mark.slow
@pytest.mark.usefixtures("blob")
def test_a_model_is_a_folder_a_file_and_two_lines(labelled: Any, tmp_path: Path) -> None:
    """It trains, resumes, is evaluated on the way, fine-tuned, loaded and found with: all of that was there."""
    run, settings = tmp_path / "run", ["trainer.max_epochs=2", "trainer.warmup_steps=0", "trainer.precision=fp32"]
    data = {"images": labelled.photos, "gt": labelled.gt}
    validation = {"val_images": labelled.photos, "val_gt": labelled.gt}
    assert train(run, settings, model="blob", control={"max_steps": 3}, **data).step == 3
    outcome = train(run, settings, model="blob", **data, **validation)
    assert outcome.finished
    assert "AP_agnostic" in outcome.values
    assert isinstance(load_detector(run).module, Blob)
    scores = evaluate_run(run, str(labelled.photos), str(labelled.gt), CPU)
    assert set(scores.report) == {"class_agnostic", "classes"}
    agnostic = train(tmp_path / "pseudo", settings, model="blob", dataset=labelled.dataset)
    assert agnostic.finished
    tuned = train(tmp_path / "tuned", settings, model="blob", start=tmp_path / "pseudo", **data)
    assert tuned.finished
    assert (tmp_path / "tuned" / "transfer.json").is_file()
