"""A small UniLSeg learns a world of words: on held scenes it does far better than any answer that ignores the text."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.schemas.training.unilseg import load_unilseg_config
from saliency_prompt.stages.training.fit import Control, Place
from word_scenes import write_word_scenes


@pytest.mark.slow
def test_it_learns_what_words_mean(tmp_path: Path) -> None:
    train, val = write_word_scenes(tmp_path / "train", 1, 1000), write_word_scenes(tmp_path / "val", 2, 40)
    overrides = ["trainer.max_epochs=1", "trainer.schedule=cosine", "trainer.lr=2e-3", "model.swin.width=24"]
    overrides += ["model.swin.heads=[1,2,4,8]", "model.channels=48", "model.embedding=48", "model.hidden=96"]
    inputs = Inputs(
        gt=str(train), images=str(train.parent / "images"), val_gt=str(val), val_images=str(val.parent / "images")
    )
    job = TrainingJob("unilseg", load_unilseg_config("tiny", overrides=overrides), inputs, tmp_path / "run")
    outcome = job.run(Place(torch.device("cpu")), Control())
    assert outcome.values["oIoU"] > 42  # everything in the scene, whatever is asked for, has less than 40
