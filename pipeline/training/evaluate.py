"""COCO metrics of a detector on annotated photographs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...models.detector import Detector
from ...schemas.errors import UserError
from ...schemas.training.sections import SupervisedConfig
from ...stages.evaluate import evaluate_coco
from ...stages.instances.labelled import CocoInstances
from ...stages.instances.results import as_results, once_each
from .find import AS_TRAINED, Conditions, find_in
from .model import load_detector


@dataclass(frozen=True, slots=True)
class Scores:
    """COCO metrics in per cent: all of them, and the few that curves show."""

    report: dict[str, Any]
    numbers: dict[str, float]


class Judge:
    """Mask and box AP on annotated images, with categories (if there are several) and without."""

    def __init__(self, config: SupervisedConfig, categories: Sequence[int], images: str, gt: str) -> None:
        self._config, self._categories, self._images, self._gt = config, list(categories), images, gt

    @cached_property
    def _data(self) -> CocoInstances:
        settings = self._config.data
        size = (settings.short_side, settings.long_side)
        data = CocoInstances(self._images, self._gt, size=size, empty=True, max_pixels=settings.max_pixels)
        if set(data.categories) - set(self._categories) and len(self._categories) > 1:
            raise UserError(
                f"{self._gt} has categories that the model was not trained on: give a file with the same ones."
            )
        return data

    def find(self, model: nn.Module, device: torch.device, rank: int = 0, world: int = 1) -> list[dict[str, Any]]:
        """Results in every world-th image. The model must be in eval mode."""
        assert isinstance(model, Detector)
        results: list[dict[str, Any]] = []
        for ref, found in find_in(model, self._config, self._data.refs()[rank::world], device):
            if found is not None:
                results += as_results(found, ref.image_id, self._categories)
        return results

    def report(self, results: list[dict[str, Any]]) -> Scores:
        """All numbers."""
        gt, image_ids = Path(self._gt), self._data.image_ids
        agnostic = evaluate_coco(gt, once_each(results), image_ids=image_ids)
        report: dict[str, Any] = {"class_agnostic": agnostic}
        numbers = {"AP_agnostic": agnostic["segm"]["AP"], "AR100_agnostic": agnostic["segm"]["AR100"]}
        if len(self._categories) > 1:
            usual = evaluate_coco(gt, results, class_agnostic=False, image_ids=image_ids)
            report["classes"] = usual
            numbers |= {"AP": usual["segm"]["AP"], "AP50": usual["segm"]["AP50"], "box_AP": usual["bbox"]["AP"]}
        return Scores(report, {name: float(value or 0.0) for name, value in numbers.items()})

    def score(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """What curves show."""
        return self.report(found).numbers


def evaluate_run(run: Path, images: str, gt: str, device: torch.device, conditions: Conditions = AS_TRAINED) -> Scores:
    """COCO metrics of a run on annotated photographs."""
    model = load_detector(run)
    judge = Judge(conditions.of(model.config), model.categories, images, gt)
    return judge.report(judge.find(model.module.to(device), device))
