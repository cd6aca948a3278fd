"""Grids and ranges from objects: few large ones need few cells, many small ones many."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.solo import SoloConfig
from saliency_prompt.stages.fit_grid import GRIDS, LEVELS, Boxes, GridFit, fit_grid, lost_share

REAL = Path(__file__).resolve().parents[3] / "shared/data/coco_train258"


def scatter(seed: int, objects: int, side: float, images: int = 20) -> list[Boxes]:
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(images):
        sides = side * np.exp(generator.normal(0, 0.3, (objects, 2)))
        corners = generator.random((objects, 2)) * (800 - side)
        found.append(Boxes(np.concatenate([corners, corners + sides], 1), (800, 800)))
    return found


def test_few_large_objects_need_fewer_cells_than_many_small_ones() -> None:
    few, many = fit_grid(scatter(0, 2, 300)), fit_grid(scatter(0, 200, 20))
    assert max(few.grids) < min(many.grids[:2])
    assert few.ranges[-1][1] > 300
    assert sum(few.counts) == 40
    assert sum(many.counts) == 4000


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(2, 700))
def test_what_is_found_is_a_configuration_and_every_object_has_a_level(seed: int, objects: int, side: float) -> None:
    images = scatter(seed, objects, side, images=3)
    fit = fit_grid(images)
    SoloConfig.model_validate({"grids": fit.grids, "ranges": fit.ranges})
    assert len(fit.grids) == len(fit.ranges) == LEVELS
    assert set(fit.grids) <= set(GRIDS)
    for image in images:
        scales = np.sqrt((image.boxes[:, 2:] - image.boxes[:, :2]).prod(1))
        inside = [(scales >= low) & (scales <= high) for low, high in fit.ranges]
        assert np.any([*inside, scales < 1], axis=0).all()


def test_shared_cells_are_counted_within_an_image() -> None:
    places = np.array([[0.1, 0.1], [0.2, 0.2], [0.9, 0.9], [0.1, 0.1]])
    assert lost_share(places, np.array([0, 0, 0, 1]), 2) == pytest.approx(1 / 4)
    assert lost_share(places, np.array([0, 0, 0, 1]), 10) == 0
    assert lost_share(np.ones((1, 2)), np.array([0]), 4) == 0


def test_resizing_counts() -> None:
    one = [Boxes(np.array([[0.0, 0, 100, 100]]), (400, 400))]
    assert fit_grid(one, short_side=800).edges[-1] > 200
    assert fit_grid(one, short_side=200).edges[-1] < 100


def test_boxes_without_area_do_not_count() -> None:
    empty = Boxes(np.array([[5.0, 5, 5, 9], [9, 9, 3, 20]]), (100, 100))
    with pytest.raises(UserError, match="annotations"):
        fit_grid([empty, Boxes(np.zeros((0, 4)), (10, 10))])
    assert sum(fit_grid([empty, *scatter(0, 3, 50, images=1)]).counts) == 3


def test_text_shows_levels_and_settings() -> None:
    fit = GridFit((40, 36, 24, 16, 12), ((1, 96),) * 5, (5,) * 5, (0.01,) * 5, (8.0, 11.3, 16.0), (10, 5))
    lines = fit.histogram().splitlines()
    assert lines[0].endswith("#" * 40)
    assert lines[1].count("#") == 20
    assert "grid  40   scales 1 - 96   5 objects, 1.0 % share a cell" in lines[2]
    assert fit.settings().startswith("model.grids=[40,36,24,16,12] model.ranges=[[1,96],")


def test_real_objects() -> None:
    if not REAL.is_dir():
        pytest.skip("needs ../shared/data/coco_train258")
    content = json.loads((REAL / "annotations.json").read_text())
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in content["images"]}
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        boxes[one["image_id"]].append([x, y, x + width, y + height])
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    fit = fit_grid([Boxes(np.array(of).reshape(-1, 4), sizes[image]) for image, of in boxes.items()])
    assert sum(fit.counts) == len(content["annotations"])
    assert fit.grids[0] > fit.grids[-1]
