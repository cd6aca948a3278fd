"""Masks of found instances against the same interpolations drawn in full by torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.stages.paste import Frame, paste

THRESHOLD = 0.5


def drawn(map_hw: np.ndarray, box: np.ndarray | None, frame: Frame) -> np.ndarray:
    """Probabilities at the stored size: every pixel of every step."""
    soft = torch.from_numpy(map_hw)[None, None]
    if box is None:
        whole = F.interpolate(soft, frame.padded, mode="bilinear", align_corners=False)
        part = whole[:, :, : frame.resized[0], : frame.resized[1]]
        return F.interpolate(part, frame.stored, mode="bilinear", align_corners=False)[0, 0].numpy()
    height, width = frame.stored
    scale_y, scale_x = height / frame.resized[0], width / frame.resized[1]
    x1, y1, x2, y2 = (box * np.array([scale_x, scale_y, scale_x, scale_y])).tolist()
    rows = (torch.arange(height, dtype=torch.float64) + 0.5 - y1) / (y2 - y1) * 2 - 1
    columns = (torch.arange(width, dtype=torch.float64) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], dim=2)
    return F.grid_sample(soft.double(), grid[None], align_corners=False)[0, 0].numpy()


def agrees(maps: np.ndarray, boxes: np.ndarray | None, frame: Frame) -> int:
    """Compare all masks; pixels within rounding of the threshold may fall on either side. Number of masks."""
    found = paste(maps, boxes, frame, threshold=THRESHOLD)
    by_index = dict(zip(found.kept.tolist(), range(len(found.kept)), strict=True))
    for index, map_hw in enumerate(maps):
        soft = drawn(map_hw, None if boxes is None else boxes[index], frame)
        sure = np.abs(soft - THRESHOLD) > 2e-6
        if index not in by_index:
            assert not ((soft > THRESHOLD) & sure).any()
            continue
        place = by_index[index]
        rle = {"size": list(frame.stored), "counts": found.counts[place]}
        mask = coco_mask.decode(rle).astype(bool)
        assert (mask == (soft > THRESHOLD))[sure].all()
        assert found.area[place] == mask.sum() == coco_mask.area(rle)
        y, x = np.nonzero(mask)
        tight = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        assert found.bbox[place].tolist() == tight
        inside = map_hw[map_hw > THRESHOLD]
        assert found.maskness[place] == pytest.approx(inside.mean() if len(inside) else 0, rel=1e-5)
    return len(by_index)


def smooth(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Blobs with hard and soft borders, some over the edge."""
    y, x = np.mgrid[:height, :width]
    maps = []
    for _ in range(count):
        cy, cx = random.uniform(-0.1, 1.1, 2) * (height, width)
        ry, rx = random.uniform(0.05, 0.6, 2) * (height, width)
        steep = random.uniform(0.5, 12)
        far = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 - 1
        maps.append(1 / (1 + np.exp(np.minimum(steep * far, 60))))
    return np.array(maps, np.float32)


sides = st.integers(3, 70)


@settings(max_examples=60)
@given(
    resized=st.tuples(sides, sides),
    stored=st.tuples(sides, sides),
    stride=st.sampled_from([4, 8]),
    seed=st.integers(0, 999),
)
def test_whole_maps(resized, stored, stride, seed) -> None:
    random = np.random.default_rng(seed)
    padded = tuple(-(-side // 32) * 32 for side in resized)
    noise = random.random((2, padded[0] // stride, padded[1] // stride), np.float32)
    maps = np.concatenate([smooth(random, 4, *noise.shape[1:]), noise])
    agrees(maps, None, Frame(padded, resized, stored))


@settings(max_examples=60)
@given(
    resized=st.tuples(sides, sides),
    stored=st.tuples(sides, sides),
    side=st.sampled_from([1, 7, 28]),
    seed=st.integers(0, 999),
)
def test_maps_in_boxes(resized, stored, side, seed) -> None:
    random = np.random.default_rng(seed)
    padded = tuple(-(-edge // 32) * 32 for edge in resized)
    maps = np.concatenate([smooth(random, 4, side, side), random.random((2, side, side), np.float32)])
    corners = random.uniform(-5, 75, (6, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 0.5], axis=1).astype(np.float32)
    agrees(maps, boxes, Frame(padded, resized, stored))


def test_a_map_whose_grid_does_not_divide_the_batch() -> None:
    maps = smooth(np.random.default_rng(3), 6, 9, 13)
    assert agrees(maps, None, Frame((64, 64), (50, 61), (100, 122))) >= 4


def test_large_photographs() -> None:
    maps = smooth(np.random.default_rng(4), 6, 48, 64)
    assert agrees(maps, None, Frame((192, 256), (190, 250), (760, 1000))) >= 5


def test_what_is_small_or_in_the_padding_is_left_out() -> None:
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, 2:5, 2:5] = 1
    maps[1, 7, 7] = 1  # beyond the image
    frame = Frame((64, 64), (40, 40), (40, 40))
    assert paste(maps, None, frame).kept.tolist() == [0]
    assert paste(maps, None, frame, min_area=41 * 41).kept.tolist() == []
    assert paste(maps[:0], None, frame).counts == []


def test_a_map_at_the_threshold_is_not_above_it() -> None:
    frame = Frame((32, 32), (32, 32), (32, 32))
    half = np.full((1, 8, 8), 0.5, np.float32)
    assert not len(paste(half, None, frame, threshold=0.5).kept)
    full = paste(np.nextafter(half, np.float32(1)), None, frame, threshold=0.5)
    assert full.area.tolist() == [32 * 32]
    assert full.bbox.tolist() == [[0, 0, 32, 32]]
