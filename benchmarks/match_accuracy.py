"""Do the features of the same place look alike in two views? Accuracy of dense matches against the known geometry.

    python benchmarks/match_accuracy.py --photos DIR --weights random densecl-r18-mini lab-color FILE ... [--json F]

Each photograph gives pairs of views by DenseCL's augmentation (224 pixels, a grid of 7 x 7 cells). Every cell of the
first view is matched to the cell of the second whose features are most alike; only cells count whose place both views
show. Chance is 1 / 49. `NAME:stride` loads caffe-style weights, `random:resnet18` another untrained network.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from environment import describe, publish

from saliency_prompt.models.densecl.losses import match_cells
from saliency_prompt.schemas.training.densecl import AugmentConfig
from saliency_prompt.stages.backbone import LoadedBackbone, load_backbone
from saliency_prompt.stages.recipes.densecl.augment import render_views
from saliency_prompt.stages.recipes.densecl.views import (
    UNIFORMS,
    draw_views,
    match_accuracy,
    step_generator,
    true_matches,
)

SIDE, SIZE, GRID, BATCH = 256, 224, 7, 32


def load(spec: str) -> LoadedBackbone:
    name, _, option = spec.partition(":")
    if option == "stride":
        return load_backbone(name, stride_in_1x1=True)
    return load_backbone(name, arch=option or "auto")


@torch.inference_mode()
def accuracies(backbone: LoadedBackbone, squares: npt.NDArray[np.uint8], aspects: npt.NDArray[np.float64]) -> float:
    """Mean over batches of photographs."""
    module, config, found = backbone.module, AugmentConfig(), []
    for first in range(0, len(squares), BATCH):
        chosen = slice(first, first + BATCH)
        uniform = step_generator(0, first, 1).random((len(squares[chosen]), 2, UNIFORMS))
        views = [draw_views(uniform[:, i], aspects[chosen], config) for i in (0, 1)]
        pixels = torch.from_numpy(squares[chosen])
        images = [render_views(pixels, one, SIZE, module.mean, module.std) for one in views]
        features = [F.normalize(module(image)["c5"].flatten(2), dim=1) for image in images]
        assert features[0].shape[2] == GRID * GRID
        matches = match_cells(features[0], features[1])
        found.append(match_accuracy(matches, torch.from_numpy(true_matches(views[0], views[1], GRID))).item())
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(options.photos.glob("*.jpg"))]
    aspects = np.array([image.shape[1] / image.shape[0] for image in images])
    squares = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images])
    result = {
        "benchmark": "match_accuracy",
        "photographs": len(images),
        "chance": round(1 / GRID**2, 4),
        "accuracy": {Path(spec).name: round(accuracies(load(spec), squares, aspects), 4) for spec in options.weights},
        "environment": describe(torch.device("cpu")),
    }
    publish(result, options.json)


if __name__ == "__main__":
    main()
