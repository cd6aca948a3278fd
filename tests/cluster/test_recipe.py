"""The recipe for Ray Data in the description of the format."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import saliency_prompt

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
TEXT = (Path(saliency_prompt.__file__).parent / "docs" / "data-format.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_data_reads_the_masks(two_nodes: Any, world: Any, photos: Path) -> None:
    dataset, report = world.run(photos, "data", "filters.min_score=0.0")
    recipe = next(one for one in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "ray.data" in one)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(recipe.replace("DATASET", dataset.url), "data-format.md", "exec"), {})  # noqa: S102
    scores = [score for commit in dataset.commits() for score in dataset.read_masks(commit)["score"].to_pylist()]
    high = sum(score >= 0.8 for score in scores)
    assert len(scores) > 0
    assert printed.getvalue().splitlines()[-1] == f"{high} of {len(scores)}"
    assert report.seal is not None
