"""Two processes share an evaluation, and one of them scores what both have found."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.store.run import Run
from training_runs import CPU, small_weights

SETTINGS = [
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "model.freeze=stem",
    "model.queries=6",
    "model.channels=32",
    "model.hidden=32",
    "trainer.max_epochs=1",
    "trainer.precision=fp32",
]


@pytest.mark.slow
def test_what_both_found_is_scored_once(labelled: Any, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("saliency-prompt")
    annotated = ["--images", labelled.photos, "--gt", labelled.gt]
    words = [
        "train",
        *annotated,
        "--val-images",
        labelled.photos,
        "--val-gt",
        labelled.gt,
        "--weights",
        small_weights(),
    ]
    words += ["--out", tmp_path / "run", "--preset", "tiny", "--device", "cpu", "--processes", "2"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([program, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ((step, values),) = Run(tmp_path / "run").evaluations().items()
    assert step == 3
    alone = evaluate_run(tmp_path / "run", str(labelled.photos), str(labelled.gt), CPU).numbers
    assert values == pytest.approx(alone, abs=0.5)  # per cent; thresholds make more of last bits
