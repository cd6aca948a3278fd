import numpy as np
import pytest

from saliency_prompt.stages.producers.merge.regions import principal


def test_few_directions_hold_features_that_lie_in_few() -> None:
    rng = np.random.default_rng(0)
    cells = rng.standard_normal((7 * 9, 5)) @ rng.standard_normal((5, 40))
    features = cells.T.reshape(40, 7, 9).astype(np.float32)
    few, basis = principal(features, 8)
    assert (few.shape, basis.shape) == ((7, 9, 8), (40, 8))
    unit = features / np.linalg.norm(features, axis=0)
    np.testing.assert_allclose(few @ basis.T, unit.transpose(1, 2, 0), atol=1e-4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-5)


@pytest.mark.parametrize(("depth", "cells"), [(6, 20), (40, 4)])
def test_what_has_few_dimensions_is_kept(depth: int, cells: int) -> None:
    features = np.random.default_rng(1).standard_normal((depth, 1, cells)).astype(np.float32)
    few, basis = principal(features, 8)
    unit = features / np.linalg.norm(features, axis=0)
    np.testing.assert_allclose(few @ basis.T, unit.transpose(1, 2, 0), atol=1e-4)


def test_zero_features_stay_zero() -> None:
    few, basis = principal(np.zeros((40, 4, 5), np.float32), 8)
    assert not few.any()
    assert np.isfinite(basis).all()
