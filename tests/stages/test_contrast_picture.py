"""The picture of the contrastive head."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from region_objects import contrast_mask
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.contrast_picture import (
    FRONT,
    GAP,
    HEAD,
    OPACITY,
    TILE,
    TITLES,
    draw_contrast,
    look,
    principal_colors,
)


@pytest.fixture
def photo(tmp_path: Path) -> ImageRef:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (70, 100, 3)).astype(np.uint8)
    pixels[20:50, 30:70] = (40, 200, 220)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    return ImageRef(1, "a.png", str(tmp_path / "a.png"))


def test_a_row_of_tiles_for_each_instance(photo: ImageRef, tmp_path: Path) -> None:
    result = look(contrast_mask().eval(), photo, (70, 128), most=3)
    assert len(result.seen.found) == 3
    out = tmp_path / "deep" / "maps.png"
    draw_contrast(result, out)
    drawn = cv2.imread(str(out))[..., ::-1]
    assert drawn.shape == (HEAD + 3 * (TILE + GAP), len(TITLES) * (TILE + GAP) - GAP, 3)
    cams = drawn[HEAD : HEAD + TILE, TILE + GAP : 2 * TILE + GAP].astype(int)
    y, x = divmod(int(result.seen.cams[0].flatten().argmax()), 28)
    viridis_top = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0, ::-1]
    assert np.abs(cams[6 * y + 3, 6 * x + 3] - viridis_top).max() <= 1
    tinted = drawn[HEAD + 6 * y + 3, 2 * (TILE + GAP) + 6 * x + 3].astype(float)  # the surest cell is foreground
    assert tinted[1] >= OPACITY * FRONT[1] - 1


def test_the_same_seed_draws_the_same_keys(photo: ImageRef) -> None:
    model = contrast_mask().eval()
    first, again, other = (look(model, photo, (70, 128), seed=seed).seen for seed in (1, 1, 2))
    assert torch.equal(first.easy, again.easy)
    assert not torch.equal(first.easy, other.easy)
    assert torch.equal(first.cams, other.cams)


def test_what_cannot_be_drawn_says_what_to_do(photo: ImageRef, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no contrastive head"):
        look(contrast_mask(cl_head=False).eval(), photo, (70, 128))
    model = contrast_mask().eval()
    with pytest.raises(UserError, match="no picture's name"):
        draw_contrast(look(model, photo, (70, 128)), tmp_path / "maps.gif")
    with pytest.raises(UserError, match="finds nothing"):
        draw_contrast(look(model, photo, (70, 128), min_score=1.0), tmp_path / "maps.png")
    Path(photo.uri).write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be used"):
        look(model, photo, (70, 128))


def test_colours_follow_the_strongest_component() -> None:
    ramp = torch.linspace(-1, 1, 28).expand(2, 28, 28)
    noise = torch.randn(2, 4, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.01
    features = noise.clone()
    features[:, 2] += 5 * ramp
    colors = principal_colors(features)
    assert colors.shape == (2, 28, 28, 3)
    red = colors[..., 0].astype(float)
    assert abs(np.corrcoef(red.flatten(), ramp.numpy().flatten())[0, 1]) > 0.99
    assert principal_colors(torch.zeros(0, 4, 28, 28)).shape == (0, 28, 28, 3)
    assert principal_colors(torch.zeros(1, 2, 28, 28)).max() == 0
