"""What FreeSOLO's recipe tells its model: vectors, rows to compare, and how warm the pairwise loss is."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_prompt.models.solo.build import build_free
from saliency_prompt.schemas.training.freesolo import FreeSoloTraining
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.instances.samples import Batch
from saliency_prompt.stages.recipes.freesolo import FreeSoloRecipe, pool_under
from tiny_backbone import TinyBackbone


class Eight:
    """A data set that is only counted."""

    def __len__(self) -> int:
        return 8

    def load(self, index: int, size: tuple[int, int]) -> Any:
        raise NotImplementedError


def recipe_of(*overrides: str, **more: Any) -> FreeSoloRecipe:
    config = load_training_config("freesolo", "tiny", overrides=overrides)
    assert isinstance(config, FreeSoloTraining)
    torch.manual_seed(0)
    host = build_free(TinyBackbone(), 1, config.model, config.weak)
    return FreeSoloRecipe(host, config, Eight(), **more)


def batch_of(seeds: Tensor) -> Batch:
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 10:40, 10:40] = masks[1, 20:60, 50:90] = 1
    boxes = torch.tensor([[10.0, 10, 40, 40], [50, 20, 90, 60]])
    return Batch(
        images=torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        masks=[masks],
        labels=[torch.zeros(2, dtype=torch.long)],
        boxes=[boxes],
        scores=[torch.ones(2)],
        seeds=[seeds],
        has_mask=[torch.ones(2, dtype=torch.bool)],
        layers=[{}],
        soft=[torch.zeros(2, dtype=torch.bool)],
        resized=[(64, 96)],
        stored=[(128, 192)],
        image_ids=[1],
        skipped=(),
    )


def test_stored_vectors_are_shortened() -> None:
    recipe = recipe_of(vectors="seed")
    (target,) = recipe.targets(batch_of(torch.randn(2, 256)))
    assert target.vectors is not None
    assert target.vectors.shape == (2, 16)
    (without,) = recipe_of().targets(batch_of(torch.randn(2, 256)))
    assert without.vectors is None
    (off,) = recipe_of("weak.embedding=0", vectors="seed").targets(batch_of(torch.randn(2, 256)))
    assert off.vectors is None


def test_the_teacher_pools_under_each_mask_and_is_not_trained_or_saved() -> None:
    teacher = TinyBackbone()
    recipe = recipe_of(teacher=teacher)
    (target,) = recipe.targets(batch_of(torch.zeros(2, 0)))
    assert target.vectors is not None
    assert target.vectors.shape == (2, 16)
    assert not any(p.requires_grad for p in teacher.parameters())
    mine = {id(p) for p in recipe.parameters()}
    assert not any(id(p) in mine for p in teacher.parameters())


def test_pooling_is_that_of_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(5, 2, 3, generator=rng)
    masks = (torch.rand(4, 64, 96, generator=rng) > 0.7).to(torch.uint8)
    found = pool_under(features, masks)
    for one in range(4):
        total = torch.zeros(5)
        for y in range(64):
            for x in range(96):
                if masks[one, y, x]:
                    total += features[:, y // 32, x // 32]
        assert torch.allclose(found[one], F.normalize(total, dim=0), atol=1e-4)
    assert pool_under(features, masks[:0]).shape == (0, 5)


def test_losses_warm_up_and_leave_out_the_bottom(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(vectors="seed")
    told: list[dict[str, Any]] = []

    def losses(*_: Any, **more: Any) -> dict[str, Tensor]:
        told.append(more)
        return {}

    monkeypatch.setattr(recipe.host, "losses", losses)
    for step in (0, 25, 50, 400):
        recipe.step = step
        recipe.losses(batch_of(torch.randn(2, 256)))
    assert [one["warmth"] for one in told] == [0, 0.5, 1, 1]
    assert told[0]["comparable"] == [(64 - 5, 96)]  # ten rows of the stored image, which is twice as high


def test_a_step_trains_every_parameter_but_the_norms() -> None:
    recipe = recipe_of(vectors="seed")
    torch.stack(list(recipe.losses(batch_of(torch.randn(2, 256))).values())).sum().backward()
    assert [n for n, p in recipe.named_parameters() if p.requires_grad and p.grad is None] == []
