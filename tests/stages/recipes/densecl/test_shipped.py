"""The backbone that ships with the package has learned something."""

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from saliency_prompt.models.densecl.losses import match_cells
from saliency_prompt.pipeline.demo import write_photographs
from saliency_prompt.schemas.training.densecl import AugmentConfig
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.stages.recipes.densecl.augment import render_views
from saliency_prompt.stages.recipes.densecl.views import (
    UNIFORMS,
    draw_views,
    match_accuracy,
    step_generator,
    true_matches,
)

PAIRS = 20  # of views, of each photograph


@torch.inference_mode()
def accuracy(weights: str, photographs: list[np.ndarray]) -> float:
    """Of dense matches between two augmented views of 224 pixels, on a grid of 7 x 7 cells."""
    module = load_backbone(weights, arch="resnet18").module
    squares = np.repeat(np.stack([cv2.resize(one, (256, 256)) for one in photographs]), PAIRS, axis=0)
    uniform = step_generator(0, 0, 1).random((len(squares), 2, UNIFORMS))
    views = [draw_views(uniform[:, i], np.ones(len(squares)), AugmentConfig()) for i in (0, 1)]
    pixels = torch.from_numpy(squares)
    images = [render_views(pixels, one, 224, module.mean, module.std) for one in views]
    query, key = (F.normalize(module(image)["c5"].flatten(2), dim=1) for image in images)
    return match_accuracy(match_cells(query, key), torch.from_numpy(true_matches(views[0], views[1], 7))).item()


def test_it_finds_the_same_place_again_more_often_than_random_weights(tmp_path: Path) -> None:
    photographs = [cv2.imread(str(path))[..., ::-1] for path in sorted(write_photographs(tmp_path).iterdir())]
    learned, random = accuracy("densecl-r18-mini", photographs), accuracy("random", photographs)
    assert learned > 1.5 * random
