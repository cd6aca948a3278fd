"""Learning rates at the places that define them."""

import pytest

from saliency_prompt.stages.training.schedules import cosine, poly, steps, warmup


def test_each_schedule_at_its_marks() -> None:
    assert [cosine(done) for done in (0, 0.5, 1, 1.5)] == pytest.approx([1, 0.5, 0, 0], abs=1e-12)
    assert [steps(done, (0.5, 0.75)) for done in (0, 0.49, 0.5, 0.8)] == pytest.approx([1, 1, 0.1, 0.01])
    assert [poly(done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5**0.9, 0])
    assert [warmup(step, 10) for step in (0, 5, 10, 99)] == pytest.approx([0.001, 0.5005, 1, 1])
    assert warmup(0, 0) == 1
