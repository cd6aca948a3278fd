"""UniLSeg as a job: trained, resumed, asked, judged, and everything that may be wrong with what it is given."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")

from saliency_prompt.pipeline.training.job import Inputs, TrainingJob
from saliency_prompt.pipeline.training.model import load_detector
from saliency_prompt.pipeline.training.referring import ask_photos, load_unilseg, read_merges
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.unilseg import UNILSEG_PRESETS, load_unilseg_config
from saliency_prompt.stages.recipes.unilseg import UniLSegRecipe
from saliency_prompt.stages.training.fit import Control, Outcome, Place
from word_scenes import write_word_scenes

CPU = torch.device("cpu")
SMALL = [
    "data.batch_size=4",
    "model.swin.width=16",
    "model.channels=16",
    "model.embedding=16",
    "model.hidden=16",
    "model.text.width=16",
    "model.text.hidden=16",
    "model.text.layers=1",
    "trainer.precision=fp32",
    "trainer.checkpoint_every=1",
    "trainer.log_every=1",
    "trainer.max_epochs=1",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_word_scenes(folder, 0, 6, texts=4)
    return folder


def run(scenes: Path, out: Path, *overrides: str, **rest: Any) -> Outcome:
    inputs: dict[str, Any] = {"gt": str(scenes / "refs.json"), "images": str(scenes / "images")}
    control = {name: rest.pop(name) for name in ("max_steps",) if name in rest}
    config = load_unilseg_config("tiny", overrides=[*SMALL, *overrides])
    job = TrainingJob("unilseg", config, Inputs(**{**inputs, **rest}), out)
    return job.run(Place(CPU), Control(**control))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_unilseg(folder).module.state_dict()


def test_a_resumed_run_is_the_same_run(scenes: Path, tmp_path: Path) -> None:
    val = {"val_gt": str(scenes / "refs.json"), "val_images": str(scenes / "images")}
    whole = run(scenes, tmp_path / "a", **val)
    assert whole.finished
    assert set(whole.values) == {"oIoU", "mIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9"}
    assert not run(scenes, tmp_path / "b", max_steps=2).finished
    run(scenes, tmp_path / "b")
    one, other = tensors(tmp_path / "a"), tensors(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_unilseg(tmp_path / "a").sha256 == load_unilseg(tmp_path / "b").sha256


def test_asked_in_words(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "run", max_steps=1)
    (scenes / "images" / "notes.png").write_bytes(b"no image")
    skipped: list[str] = []
    try:
        photos, out = str(scenes / "images"), tmp_path / "o"
        count = ask_photos(tmp_path / "run", photos, ["all circles", "x" * 5000], out, CPU, skip=skipped.append)
    finally:
        (scenes / "images" / "notes.png").unlink()
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert count == len(results) == 12
    assert len(skipped) == 1
    assert results[0]["text"] == "all circles"
    assert results[0]["segmentation"]["size"] == [64, 64]
    assert len(list((tmp_path / "o").glob("*.png"))) == 6
    with pytest.raises(UserError, match="no words"):
        ask_photos(tmp_path / "run", photos, [" "], tmp_path / "o", CPU)
    with pytest.raises(UserError, match="asked in words"):
        load_detector(tmp_path / "run")


def test_weights_of_an_encoder_and_of_a_run_are_taken(scenes: Path, tmp_path: Path) -> None:
    run(scenes, tmp_path / "first", max_steps=1)
    state = tensors(tmp_path / "first")
    swin = {name.removeprefix("visual."): one for name, one in state.items() if name.startswith("visual.features.")}
    save_file({name: one.contiguous() for name, one in swin.items()}, tmp_path / "swin.safetensors")
    run(scenes, tmp_path / "second", max_steps=1, weights=str(tmp_path / "swin.safetensors"))
    moved = json.loads((tmp_path / "second" / "transfer.json").read_text())
    assert sorted(f"visual.{name}" for name in load_file(tmp_path / "swin.safetensors")) == moved["transferred"]
    run(scenes, tmp_path / "third", max_steps=1, start=str(tmp_path / "first"))
    moved = json.loads((tmp_path / "third" / "transfer.json").read_text())
    assert not moved["fresh"]
    for file, words in ((tmp_path / "none", "no file"), (tmp_path / "other.safetensors", "nothing of this model")):
        save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
        with pytest.raises(UserError, match=words):
            run(scenes, tmp_path / "fourth", weights=str(file))


def test_a_tokenizer_that_does_not_fit_the_weights(scenes: Path, tmp_path: Path) -> None:
    name = "text_model.embeddings.token_embedding.weight"
    save_file({name: torch.zeros(49408, 16)}, tmp_path / "clip.safetensors")
    with pytest.raises(UserError, match=r"vocabulary of 49408 .* model.text.vocabulary"):
        run(scenes, tmp_path / "run", weights=str(tmp_path / "clip.safetensors"))


def test_vocabularies_from_files(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_text("#version\nt h\nth e</w>\n")
    assert read_merges(str(path)) == [("t", "h"), ("th", "e</w>")]
    for text, words in (("#version\nt h\nt h\n", "twice"), ("#version\nt h e\n", "two parts"), ("", "two parts")):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_merges(str(path))
    (tmp_path / "merges.txt.gz").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot be read"):
        read_merges(str(tmp_path / "merges.txt.gz"))


def test_what_is_missing_is_asked_for(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PAIRS, or --refer"):
        run(scenes, tmp_path / "run", gt=None)
    with pytest.raises(UserError, match="--images"):
        run(scenes, tmp_path / "run", images=None)
    with pytest.raises(UserError, match="pretrain_epochs=0"):
        run(scenes, tmp_path / "run", "trainer.pretrain_epochs=1")


class Pseudo:
    """A source of pairs that models made."""

    name, pseudo, sha256 = "pseudo", True, ""

    def __len__(self) -> int:
        return 40


def test_two_stages_have_their_own_rates_and_sources() -> None:
    overrides = ["trainer.pretrain_epochs=2", "trainer.max_epochs=3", "trainer.pretrain_lr=0.1", "trainer.lr=0.2"]
    config = load_unilseg_config("tiny", overrides=[*SMALL, *overrides, "trainer.warmup_steps=0", "trainer.lr_batch=4"])
    from saliency_prompt.models.unilseg.tokenizer import Tokenizer
    from saliency_prompt.pipeline.training.referring import build_unilseg

    tokenizer = Tokenizer()
    recipe = UniLSegRecipe(build_unilseg(config, tokenizer), config, [Pseudo()], tokenizer)  # type: ignore[list-item]
    assert recipe.schedule.epoch_steps == 10
    assert recipe.switch == 20
    np.testing.assert_allclose(
        [recipe.rate(step) for step in (0, 19, 20, 39, 40, 49)], [0.1, 0.1, 0.2, 0.2, 0.02, 0.02]
    )
    factors = {id(p): group["factor"] for group in recipe.groups() for p in group["params"]}
    assert len(factors) == len(list(recipe.host.parameters()))
    assert {factors[id(p)] for p in recipe.host.text.parameters()} == {1.0}


def test_presets_are_the_paper() -> None:
    for name in ("unilseg-20", "unilseg-100"):
        config = load_unilseg_config(name)
        trainer = config.trainer
        assert (trainer.pretrain_epochs, trainer.pretrain_lr, trainer.max_epochs, trainer.lr) == (5, 5e-5, 15, 1e-4)
        assert trainer.decay_at == (2 / 3,)
        assert trainer.backbone_lr == 0.1
        assert (config.data.side, config.data.hide, config.model.text.length) == (480, 0.2, 17)
    assert set(UNILSEG_PRESETS) == {"unilseg-20", "unilseg-100", "tiny"}
    for wrong in ("model.text.heads=7", "model.swin.heads=[3,3,3,3]", "model.text.length=78", "trainer.accumulate=5"):
        with pytest.raises(UserError):
            load_unilseg_config("tiny", overrides=[wrong])
