"""COCO metrics of a detector on annotated photographs."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...models.detector import Detector
from ...schemas.errors import UserError
from ...schemas.partial import Group, Split
from ...schemas.training.sections import SupervisedConfig
from ...stages.evaluate import MOST, evaluate_coco, read_annotations
from ...stages.groups import GROUPS, evaluate_groups
from ...stages.instances.labelled import CocoInstances
from ...stages.instances.results import as_results, once_each
from ...stages.oracle_masks import with_oracle_masks
from .find import AS_TRAINED, Conditions, find_in
from .matting import evaluate_mattes
from .model import LoadedDetector, load_detector
from .panoptic import PanopticJudge
from .partial import split_of
from .scores import Scores, coco_rows


class Judge:
    """Mask and box AP on annotated images: with categories (if there are several), by group of a split, and without."""

    def __init__(
        self, config: SupervisedConfig, categories: Sequence[int], images: str, gt: str, split: Split | None = None
    ) -> None:
        self._config, self._categories, self._images, self._gt = config, list(categories), images, gt
        self._split = split
        self._most = config.trainer.max_detections or MOST

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
        most = self._most
        agnostic = evaluate_coco(gt, once_each(results), image_ids=image_ids, most=most)
        report: dict[str, Any] = {"class_agnostic": agnostic}
        numbers = {"AP_agnostic": agnostic["segm"]["AP"], f"AR{most}_agnostic": agnostic["segm"][f"AR{most}"]}
        if len(self._categories) > 1:
            usual = evaluate_coco(gt, results, class_agnostic=False, image_ids=image_ids, most=most)
            report["classes"] = usual
            numbers |= {"AP": usual["segm"]["AP"], "AP50": usual["segm"]["AP50"], "box_AP": usual["bbox"]["AP"]}
        if self._split is not None:
            groups = self.groups(results, ("novel", "base"))
            report |= groups
            numbers |= {f"AP_{group}": one["segm"]["AP"] for group, one in groups.items()}
        return Scores(report, {name: float(value or 0.0) for name, value in numbers.items()}, coco_rows(report))

    def groups(self, results: list[dict[str, Any]], groups: Sequence[Group] = GROUPS) -> dict[str, dict[str, Any]]:
        """COCO metrics of groups of the split's classes."""
        assert self._split is not None
        image_ids = self._data.image_ids
        if missing := set(self._categories) - set(self._data.categories):
            raise UserError(
                f"{self._gt} lacks category {min(missing)}, which the run's split has: list it, with objects or not."
            )
        gt, split = Path(self._gt), self._split
        return evaluate_groups(gt, results, self._categories, split, groups, image_ids=image_ids, most=self._most)

    def score(self, found: list[dict[str, Any]]) -> dict[str, float]:
        """What curves show."""
        return self.report(found).numbers


def evaluate_run(
    run: Path,
    images: str,
    gt: str,
    device: torch.device,
    conditions: Conditions = AS_TRAINED,
    *,
    classes: Group | None = None,
    oracle_masks: bool = False,
) -> Scores:
    """How good a run is on photographs: COCO metrics, Panoptic Quality, or errors of mattes, as its model has it.

    `gt` is a COCO file, a panoptic json, or a folder of mattes. `classes` asks for one group of the run's split alone.
    With `oracle_masks` each mask is replaced by the annotated one that it overlaps most.
    """
    model = load_detector(run)
    if model.card.recipe in ("panoptic", "matting"):
        if classes is not None or oracle_masks:
            raise UserError(f"{run} is a run of {model.card.model}: leave --classes and --oracle-masks out.")
        return _evaluate_extended(model, images, gt, device)
    split = split_of(model.card)
    if classes in ("novel", "base") and split is None:
        raise UserError(f"{run} was trained with the masks of all classes: leave --classes out, or train with --base.")
    judge = Judge(conditions.of(model.config), model.categories, images, gt, split)
    results = judge.find(model.module.to(device), device)
    if oracle_masks:
        results = with_oracle_masks(results, read_annotations(Path(gt))[0].values())
    if classes is None or split is None:
        return judge.report(results)
    report = judge.groups(results, (classes,))
    return Scores(report, {f"AP_{classes}": float(report[classes]["segm"]["AP"] or 0.0)}, coco_rows(report))


def _evaluate_extended(model: LoadedDetector, images: str, gt: str, device: torch.device) -> Scores:
    if model.card.recipe == "matting":
        return evaluate_mattes(model, images, gt, device)
    judge = PanopticJudge(model.config, model.card, images, gt)
    return judge.report(judge.find(model.module.to(device), device))
