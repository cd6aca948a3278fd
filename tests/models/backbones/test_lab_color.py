import math

import cv2
import numpy as np
import pytest
import skimage.color
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.models.backbones.lab_color import LabColor, rgb_to_lab
from saliency_prompt.models.backbones.registry import build_backbone

sides = st.integers(1, 130)


def noise(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_lab_agrees_with_scikit_image_and_with_opencvs_float_path():
    values = np.linspace(0, 1, 18, dtype=np.float32)
    rgb = np.stack(np.meshgrid(values, values, values), axis=-1).reshape(-1, 18, 3)
    ours = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - skimage.color.rgb2lab(rgb)).max() < 0.02
    assert np.abs(ours - cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)).max() <= 0.35


@settings(deadline=None, max_examples=25)
@given(sides, sides)
def test_grids_are_those_of_the_resnets(height, width):
    model = LabColor()
    maps = model(torch.zeros(2, 3, height, width))
    for name, features in maps.items():
        h, w = height, width
        for _ in range(int(name[1])):
            h, w = math.ceil(h / 2), math.ceil(w / 2)
        assert features.shape == (2, model.channels[name], h, w)
    assert list(model(torch.zeros(1, 3, height, width), "c4")) == ["c3", "c4"]


@settings(deadline=None, max_examples=25)
@given(sides, sides, st.tuples(*[st.integers(0, 255)] * 3))
def test_a_uniform_image_has_equal_features_everywhere(height, width, color):
    image = (torch.tensor(color).view(1, 3, 1, 1) / 255).expand(1, 3, height, width)
    for features in LabColor()(image).values():
        assert torch.equal(features, features[:, :, :1, :1].expand_as(features))


@settings(deadline=None, max_examples=15)
@given(st.integers(33, 100), st.integers(33, 100), st.integers(0, 2**31))
def test_features_do_not_depend_on_the_batch_nor_on_the_memory_layout(height, width, seed):
    model, images = LabColor(), noise(height, width, seed)
    alone = model(images)["c5"]
    batch = torch.cat([noise(height, width, seed + 1), images]).contiguous(memory_format=torch.channels_last)
    assert torch.equal(model(batch)["c5"][1:], alone)


def test_cosine_tells_color_and_texture_apart():
    image = torch.full((1, 3, 64, 128), 0.5)
    image[:, 0, :, 32:64] = 0.9  # another colour
    image[..., 64:96] = torch.arange(32).div(2, rounding_mode="floor").remainder(2) * 0.4 + 0.3  # upright stripes
    unit = F.normalize(LabColor()(image)["c5"][0].flatten(1), dim=0)
    cosine = (unit.T @ unit).view(2, 4, 2, 4)[0, :, 1]
    assert torch.allclose(cosine.diagonal(), torch.ones(4), atol=1e-5)
    off = cosine[~torch.eye(4, dtype=torch.bool)].reshape(4, 3)
    assert cosine[0, 1] < 0.3
    assert cosine[0, 2] < 0.5
    assert cosine[0, 3] > 0.9  # the same grey, apart from the edge beside it
    assert off.min() > -0.3


def test_cosine_of_two_colors_is_the_gaussian_kernel_of_their_lab_distance():
    """Up to the error of a finite number of frequencies: small on average, bounded at worst."""
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(300, 3, generator=generator)
    second = (first + 0.5 * torch.rand(300, 3, generator=generator) - 0.25).clamp(0, 1)
    images = torch.cat([first, second]).view(600, 3, 1, 1).expand(600, 3, 32, 32)
    features = F.normalize(LabColor()(images)["c5"].flatten(1), dim=1)
    lab = rgb_to_lab(images)[:, :, 0, 0] / torch.tensor([12.0, 8.0, 8.0])
    kernel = torch.exp(-(lab[:300] - lab[300:]).square().sum(1) / 2)
    error = ((features[:300] * features[300:]).sum(1) - kernel).abs()
    assert error.mean() < 0.08
    assert error.max() < 0.35


def test_orientation_of_stripes_matters_and_their_polarity_does_not():
    stripes = torch.arange(64).div(4, rounding_mode="floor").remainder(2) * 0.3 + 0.35
    upright = stripes.view(1, 1, 1, 64).expand(1, 3, 64, 64)
    features = [LabColor()(x)["c5"].flatten() for x in (upright, upright.transpose(2, 3), upright.flip(3))]
    assert F.cosine_similarity(features[0], features[1], dim=0) < 0.95
    assert F.cosine_similarity(features[0], features[2], dim=0) > 0.98


def test_normalisation_takes_decoded_pixels_to_0_1_and_type_is_kept():
    model = build_backbone("lab-color")
    pixels = torch.tensor([0.0, 255.0])
    assert ((pixels - model.mean[0]) / model.std[0]).tolist() == [0.0, 1.0]
    assert model.channels["c5"] <= 256
    assert not list(model.parameters())
    assert model.bfloat16()(noise(64, 64).bfloat16())["c5"].dtype == torch.bfloat16
    with pytest.raises(ValueError, match="c3, c4, c5"):
        model(noise(64, 64), "c2")
