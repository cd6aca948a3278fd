"""The composed steps on planted objects, and their invariances."""

import numpy as np
import pytest
import torch

from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.schemas.load import load_config
from saliency_prompt.stages.producers.saliency import proposals
from saliency_prompt.stages.producers.saliency.proposals import propose
from saliency_prompt.stages.producers.saliency.saliency import seed_positions


def planted(objects: list[tuple[slice, slice]], height: int = 20, width: int = 24, seed: int = 0) -> torch.Tensor:
    """Features [1, 32, H, W]: a background direction and one orthogonal direction per object, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q
    features = directions[:, 0].view(32, 1, 1).expand(32, height, width).clone()
    for i, (rows, columns) in enumerate(objects):
        features[:, rows, columns] = directions[:, i + 1].view(32, 1, 1)
    return (features + 0.02 * torch.randn(features.shape, generator=generator))[None]


OBJECTS = [(slice(8, 14), slice(2, 8)), (slice(10, 18), slice(14, 20))]


@pytest.mark.parametrize("preset", ["saliency-prompt", "uplvp", "freesolo", "paper-literal"])
def test_planted_objects_are_found_with_their_seeds_inside(preset: str) -> None:
    found = propose(planted(OBJECTS), load_config(preset))
    soft = found.saliency[0] >= 0.5
    positions = seed_positions(found.layout)[found.seed_index[0]]
    for rows, columns in OBJECTS:
        truth = torch.zeros(20, 24, dtype=torch.bool)
        truth[rows, columns] = True
        iou = (soft & truth).sum((1, 2)) / (soft | truth).sum((1, 2))
        best = int(torch.where(found.score[0] > 0.1, iou, 0).argmax())
        assert iou[best] > 0.9
        scale, y, x = positions[best].tolist()
        height, width = found.layout.shapes[found.layout.scale_index.index(scale)]
        cell_y, cell_x = int((y + 0.5) * 20 / height), int((x + 0.5) * 24 / width)
        assert rows.start - 1 <= cell_y <= rows.stop
        assert columns.start - 1 <= cell_x <= columns.stop


def test_vectors_are_those_of_the_definition() -> None:
    features = planted(OBJECTS)
    config = load_config()
    found = propose(features, config)
    seeds = torch.nn.functional.normalize(
        torch.cat(
            [
                torch.nn.functional.interpolate(features, scale_factor=s, mode="bilinear").flatten(2)
                for s in config.saliency.scales
            ],
            dim=2,
        )[0].T,
        dim=1,
    )
    for rank in range(3):
        index = int(found.seed_index[0, rank])
        np.testing.assert_allclose(found.vectors["seed"][0, rank].float(), seeds[index], atol=1e-3)
        ys, xs = torch.nonzero(found.saliency[0, rank] >= 0.5, as_tuple=True)
        box = features[0, :, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].mean((1, 2))
        np.testing.assert_allclose(found.vectors["box_mean"][0, rank].float(), box, atol=2e-3)


def test_scores_fall_and_masks_are_capped() -> None:
    config = load_config(overrides=["nms.max_masks=3"])
    found = propose(planted(OBJECTS), config)
    assert found.score.shape == (1, 3)
    assert (found.score[0].diff() <= 0).all()
    assert (found.score <= found.score_raw + 1e-6).all()


def test_the_early_cut_changes_nothing_that_survives() -> None:
    """Masks below the final score cut are dropped before NMS; without the cut the survivors are the same."""
    features = planted(OBJECTS, seed=3) + 0.3 * torch.rand(1, 32, 20, 24, generator=torch.Generator().manual_seed(5))
    with_cut = propose(features, load_config())
    without = propose(features, load_config(overrides=["filters.min_score=null"]))
    survivors = int((without.score[0] >= 0.7).sum())
    assert survivors >= 2
    for name in ("score", "score_raw", "seed_index", "saliency"):
        assert torch.equal(getattr(with_cut, name)[0, :survivors], getattr(without, name)[0, :survivors])
    assert (with_cut.score[0] >= 0.7).sum() == survivors


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    one, two = planted(OBJECTS, seed=1), planted(OBJECTS[:1], seed=2)
    together = propose(torch.cat([one, two]), Config())
    for i, features in enumerate((one, two)):
        alone = propose(features, Config())
        count = min(alone.score.shape[1], int((together.score[i] > 0).sum()))
        assert count > 0
        torch.testing.assert_close(together.score[i, :count], alone.score[0, :count], atol=1e-5, rtol=0)
        assert torch.equal(together.seed_index[i, :count], alone.seed_index[0, :count])


def test_nan_features_are_marked_and_stay_with_their_image() -> None:
    features = torch.cat([planted(OBJECTS, seed=1), planted(OBJECTS, seed=2), planted(OBJECTS, seed=2)])
    features[1, 3, 4, 5] = float("nan")
    features[2, 3, 4, 5] = float("inf")
    found = propose(features, Config())
    assert found.finite.tolist() == [True, False, False]
    assert torch.isfinite(found.score).all()
    assert found.score[0, 0] > 0.7


def test_two_by_two_cells_and_a_constant_map_are_no_problem() -> None:
    assert not propose(torch.ones(1, 8, 2, 2), Config()).score.any()
    assert propose(torch.rand(1, 8, 2, 2), Config()).score.shape[0] == 1


def test_large_grids_are_worked_off_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.cat([planted(OBJECTS, seed=1), planted(OBJECTS[:1], seed=2), planted(OBJECTS, seed=3)])
    whole = propose(features, Config())
    monkeypatch.setattr(proposals, "MAX_MAP_VALUES", 2 * whole.layout.num_seeds * 20 * 24)
    parts = propose(features, Config())
    for name in ("score", "score_raw", "saliency", "finite"):
        assert torch.equal(getattr(parts, name), getattr(whole, name))
    assert all(torch.equal(parts.vectors[name], whole.vectors[name]) for name in whole.vectors)


def test_the_cut_of_maskness_leaves_duplicates_to_nms() -> None:
    features = planted(OBJECTS)
    off = ["filters.min_score=null"]
    every = propose(features, load_config(overrides=off))
    least = float(every.score_raw[0].median())
    cut = propose(features, load_config(overrides=[*off, f"filters.min_maskness={least}"]))
    kept = cut.score[0] > 0
    assert 0 < kept.sum() < (every.score[0] > 0).sum()
    assert (cut.score_raw[0][kept] >= least).all()
    assert (cut.score[0][kept] < least).any()  # decayed below it, and kept
    scores = dict(zip(every.seed_index[0].tolist(), every.score[0].tolist(), strict=True))
    for seed, score in zip(cut.seed_index[0][kept].tolist(), cut.score[0][kept].tolist(), strict=True):
        assert scores.get(seed, score) == pytest.approx(score)


def test_the_best_mask_is_kept_where_none_has_the_maskness() -> None:
    high = ["filters.min_maskness=1.0"]
    best = propose(planted(OBJECTS), load_config("uplvp", overrides=high))
    assert (best.score[0] > 0).sum() == 1
    assert best.score[0, 0] == propose(planted(OBJECTS), load_config("uplvp")).score_raw[0].max()
    assert not (propose(planted(OBJECTS), load_config(overrides=high)).score[0] > 0).any()
