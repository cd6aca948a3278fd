"""Finding objects in photographs: company and padding change nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from corpus import encode, scene
from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.queries.knet.model import KNet
from saliency_prompt.pipeline.training.find import Conditions, find_in
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.instances.results import Instances

CPU = torch.device("cpu")
SIZES = [(64, 64), (64, 96), (50, 64), (96, 64), (64, 64), (64, 90), (64, 64)]


def photographs(folder: Path) -> list[ImageRef]:
    refs = []
    for number, (height, width) in enumerate(SIZES):
        pixels, _ = scene(number, height, width)
        path = folder / f"{number}.png"
        path.write_bytes(encode(pixels, "PNG"))
        refs.append(ImageRef(number, path.name, str(path), width=width, height=height))
    return refs


def test_what_is_found_does_not_depend_on_the_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    host = KNet(build_backbone("resnet18"), 1, num_queries=7, channels=32, hidden=64).eval()
    settings = ["data.short_side=64", "data.long_side=96", "trainer.precision=fp32"]
    config = load_training_config("knet", "tiny", overrides=settings)
    refs = photographs(tmp_path)

    def find(some: list[ImageRef]) -> dict[int, Instances]:
        return {ref.image_id: found for ref, found in find_in(host, config, some, CPU) if found is not None}

    together = find(refs)
    assert sorted(together) == list(range(len(SIZES)))
    for ref in refs:
        alone = find([ref])[ref.image_id]
        np.testing.assert_allclose(alone.scores, together[ref.image_id].scores, atol=1e-4)


def test_an_unreadable_photograph_costs_itself_alone(tmp_path: Path) -> None:
    host = KNet(build_backbone("resnet18"), 1, num_queries=7, channels=32, hidden=64).eval()
    config = load_training_config("knet", "tiny", overrides=["data.short_side=64", "data.long_side=96"])
    refs = photographs(tmp_path)
    Path(refs[2].uri).write_bytes(b"no picture")
    told: list[str] = []
    found = {ref.image_id: one for ref, one in find_in(host, config, refs, CPU, skipped=told.append)}
    assert [number for number, one in found.items() if one is None] == [2]
    assert len(found) == len(refs)
    assert len(told) == 1


def test_a_model_can_be_used_at_other_sizes_than_it_was_trained_at() -> None:
    config = load_training_config("knet", "sp-cityscapes")
    assert Conditions().of(config) == config
    wide = Conditions(1600, 1600, 0.3).of(config)
    assert (wide.data.short_side, wide.data.long_side, wide.trainer.threshold) == (1600, 1600, 0.3)
    assert Conditions(long_side=1024).of(config).data.long_side == 1024
    with pytest.raises(UserError, match="--long-side"):
        Conditions(short_side=3000).of(config)
    with pytest.raises(UserError, match="short_side"):
        Conditions(short_side=8, long_side=16).of(config)
