import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from saliency_prompt.schemas.labels.saliency import FiltersConfig
from saliency_prompt.stages.encode import encode_masks, rim_share

# pycocotools 2.0.11 decodes with numpy 1 habits
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OFF = FiltersConfig(min_score=None, min_center_y=None, max_width=None)


def decode(encoded, height, width):
    return [coco_mask.decode({"size": [height, width], "counts": c}).astype(bool) for c in encoded.counts]


def encode_drawn(masks, filters, scores=None):
    """Masks drawn at the size of the image: upsampling to the same size changes nothing."""
    maps = np.stack(masks).astype(np.float32)
    scores = np.linspace(1, 0.9, len(masks), dtype=np.float32) if scores is None else np.array(scores, np.float32)
    height, width = maps.shape[1:]
    return encode_masks(maps, scores, height=height, width=width, tau=0.5, filters=filters)


def rectangle(height, width, y, x, h, w):
    mask = np.zeros((height, width), bool)
    mask[y : y + h, x : x + w] = True
    return mask


@given(
    st.integers(1, 14), st.integers(1, 14), st.integers(1, 90), st.integers(1, 90),
    st.sampled_from([0.1, 0.3, 0.5, 0.77]), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_masks_are_those_of_torch_interpolation(rows, columns, height, width, tau, seed):
    maps = np.random.default_rng(seed).random((4, rows, columns), np.float32)
    encoded = encode_masks(maps, np.ones(4, np.float32), height=height, width=width, tau=tau, filters=OFF)
    size = (height, width)
    upsampled = F.interpolate(torch.from_numpy(maps)[None], size=size, mode="bilinear", align_corners=False)[0].numpy()
    found = np.zeros((4, *size), bool)
    found[encoded.kept] = decode(encoded, *size) or 0
    unsure = np.abs(upsampled - tau) < 1e-5
    np.testing.assert_array_equal(found | unsure, (upsampled >= tau) | unsure)
    assert found[encoded.kept].any((1, 2)).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_padding_is_cut_off_after_interpolation(rows, columns, height, width, seed):
    rng = np.random.default_rng(seed)
    maps = rng.random((3, rows, columns), np.float32)
    padded = (height + int(rng.integers(0, 20)), width + int(rng.integers(0, 20)))
    share = (height / padded[0], width / padded[1])
    encoded = encode_masks(maps, np.ones(3, np.float32), height=height, width=width, tau=0.5, filters=OFF, share=share)
    whole = F.interpolate(torch.from_numpy(maps)[None], size=padded, mode="bilinear", align_corners=False)[0].numpy()
    expected = whole[:, :height, :width]
    found = np.zeros((3, height, width), bool)
    found[encoded.kept] = decode(encoded, height, width) or 0
    unsure = np.abs(expected - 0.5) < 1e-5
    np.testing.assert_array_equal(found | unsure, (expected >= 0.5) | unsure)


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.02, 0.1, 0.5, 0.9]), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_bytes_boxes_and_areas_are_those_of_pycocotools(height, width, density, seed):
    masks = np.random.default_rng(seed).random((5, height, width)) < density
    encoded = encode_drawn(masks, OFF)
    np.testing.assert_array_equal(encoded.kept, np.flatnonzero(masks.any((1, 2))))
    references = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks if m.any()]
    assert encoded.counts == [r["counts"] for r in references]
    assert encoded.area.tolist() == [coco_mask.area(r) for r in references]
    assert encoded.bbox.tolist() == [coco_mask.toBbox(r).tolist() for r in references]


@given(st.integers(2, 25), st.integers(2, 25), st.sampled_from([0.03, 0.1, 0.3]), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_geometric_filters_are_the_projections(height, width, density, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((6, height, width)) < density
    masks[3:] &= rng.random((3, 1, width)) < 0.5  # with columns left empty
    masks[3:] &= rng.random((3, height, 1)) < 0.5
    masks = masks[masks.any((1, 2))]
    if not len(masks):
        return
    center = np.array([np.flatnonzero(m.any(1)).mean() for m in masks])
    columns = masks.any(1).sum(1)
    by_center = encode_drawn(masks, OFF.model_copy(update={"min_center_y": 0.45}))
    by_width = encode_drawn(masks, OFF.model_copy(update={"max_width": 0.6}))
    np.testing.assert_array_equal(by_center.kept, np.flatnonzero(center > 0.45 * height))
    np.testing.assert_array_equal(by_width.kept, np.flatnonzero(columns < 0.6 * width))


def test_center_is_of_the_projection_not_of_the_tight_box():
    mask = rectangle(20, 20, 0, 0, 3, 3) | rectangle(20, 20, 19, 0, 1, 1)  # rows 0 1 2 19: mean 5.5, box centre 10
    assert encode_drawn([mask], OFF.model_copy(update={"min_center_y": 0.27})).kept.tolist() == [0]
    assert encode_drawn([mask], OFF.model_copy(update={"min_center_y": 0.28})).kept.tolist() == []


def test_each_filter_has_its_own_switch():
    sky = rectangle(40, 40, 0, 10, 6, 10)
    ground = rectangle(40, 40, 30, 0, 10, 40)
    speck = rectangle(40, 40, 20, 20, 1, 2)
    thing = rectangle(40, 40, 15, 10, 12, 8)
    masks, scores = [sky, ground, speck, thing], [0.9, 0.8, 0.75, 0.6]

    def kept(**filters):
        return encode_drawn(masks, OFF.model_copy(update=filters), scores).kept.tolist()

    assert kept() == [0, 1, 2, 3]
    assert kept(min_center_y=0.2) == [1, 2, 3]
    assert kept(max_width=0.95) == [0, 2, 3]
    assert kept(min_area=3) == [0, 1, 3]
    assert kept(min_score=0.7) == [0, 1, 2]
    assert kept(min_center_y=0.2, max_width=0.95, min_area=3, min_score=0.7) == []


def test_best_mask_is_kept_alone_when_all_are_rejected():
    nothing = np.zeros((40, 40), bool)
    masks = [nothing, rectangle(40, 40, 0, 10, 6, 10), rectangle(40, 40, 30, 0, 10, 40)]
    strict = FiltersConfig(min_score=0.7, min_center_y=0.2, max_width=0.95, keep_best=True)
    for scores in ([0.9, 0.8, 0.75], [0.5, 0.4, 0.3]):
        encoded = encode_drawn(masks, strict, scores)
        assert encoded.kept.tolist() == [1]
        assert encoded.bbox.tolist() == [[10, 0, 10, 6]]
    assert encode_drawn(masks, strict, [0, 0, 0]).kept.tolist() == []
    assert encode_drawn([*masks, rectangle(40, 40, 10, 10, 9, 9)], strict, [0.9, 0.9, 0.9, 0.8]).kept.tolist() == [3]


def test_score_zero_is_no_mask():
    assert encode_drawn([rectangle(9, 9, 3, 3, 4, 4)] * 2, OFF, [0.1, 0.0]).kept.tolist() == [0]


def test_mask_between_the_pixels_of_a_small_image_is_dropped():
    maps = np.zeros((2, 33, 33), np.float32)
    maps[0, 3, 3] = 1
    maps[1, 16, 16] = 1  # under the middle pixel of 11 x 11
    encoded = encode_masks(maps, np.ones(2, np.float32), height=11, width=11, tau=0.5, filters=OFF)
    assert encoded.kept.tolist() == [1]
    assert encoded.bbox.tolist() == [[5, 5, 1, 1]]


def test_no_maps():
    encoded = encode_masks(
        np.zeros((0, 5, 6), np.float32), np.zeros(0, np.float32), height=9, width=9, tau=0.5, filters=OFF
    )
    assert encoded.counts == []
    assert encoded.bbox.shape == (0, 4)
    assert encoded.area.shape == encoded.kept.shape == (0,)


@pytest.mark.parametrize("tau", [1e-12, 1 - 1e-7])
def test_runs_are_valid_at_extreme_thresholds(tau):
    maps = np.random.default_rng(0).choice(np.array([0, 1e-12, 0.5, 1], np.float32), (20, 9, 9))
    encoded = encode_masks(maps, np.ones(20, np.float32), height=27, width=45, tau=tau, filters=OFF)
    for mask, area in zip(decode(encoded, 27, 45), encoded.area, strict=True):
        assert mask.sum() == area


def test_masks_of_the_rim_are_left_out_where_that_is_asked_for():
    maps = np.zeros((4, 8, 9), np.float32)
    maps[0, :, 0] = maps[1, 0, :] = 1  # strips
    maps[2, :, :4] = 1  # half of the picture: 8 + 6 of its 32 cells are in the ring
    maps[3, 3:5, 3:5] = 1
    np.testing.assert_allclose(rim_share(maps >= 0.5), [1, 1, 14 / 32, 0])
    assert rim_share(np.zeros((1, 2, 2), bool)) == [0]
    for most, kept in ((None, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3]), (0.8, [2, 3]), (0.4, [3])):
        filters = OFF.model_copy(update={"max_rim": most})
        found = encode_masks(maps, np.ones(4, np.float32), height=80, width=90, tau=0.5, filters=filters)
        assert found.kept.tolist() == kept
