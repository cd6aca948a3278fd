"""A training run moves the backbone that it was given, as far as `model.freeze` lets it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.pipeline.training.evaluate import evaluate_run
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from training_runs import small_weights, train

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
SMALL = [
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "trainer.lr=0.01",
    "trainer.warmup_steps=0",
    "trainer.precision=fp32",
    "trainer.evaluate_every=0",
]


def moved(model: str, freeze: str, labelled: Any, out: Path) -> set[str]:
    """Layers of the backbone that hold something else after a step of training."""
    inputs = {"dataset": labelled.dataset} if model == "freesolo" else {"images": labelled.photos, "gt": labelled.gt}
    train(out, [*SMALL, f"model.freeze={freeze}"], model=model, control={"max_steps": 1}, **inputs)
    after = read_checkpoint(out / "last.ckpt").state
    before = load_file(small_weights())
    changed = {name for name, value in before.items() if not torch.equal(value, after[f"host.backbone.{name}"])}
    assert not {name for name in changed if ".bn" in name or "downsample.1" in name}  # norms stay
    return {name.split(".")[0] for name in changed}


def test_as_far_as_it_is_let(labelled: Any, tmp_path: Path) -> None:
    assert moved("knet", "all", labelled, tmp_path / "all") == set()
    assert moved("knet", "stem", labelled, tmp_path / "stem") == {"layer2", "layer3", "layer4"}
    every = {"conv1", "layer1", "layer2", "layer3", "layer4"}
    assert moved("knet", "none", labelled, tmp_path / "none") == every


@pytest.mark.parametrize("model", ["queryinst", "mask2former", "solov2", "contrastmask", "freesolo"])
def test_of_every_model(model: str, labelled: Any, tmp_path: Path) -> None:
    assert moved(model, "stem", labelled, tmp_path / "run") == {"layer2", "layer3", "layer4"}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of a ViT-S/16 under its publishers' names."""
    pytest.importorskip("timm", reason="timm is not installed (extra vit)")
    path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(build_backbone("timm:vit_small_patch16_224").get_submodule("model").state_dict(), path)
    return path


@pytest.mark.parametrize(("model", "freeze"), [("solov2", "all"), ("mask2former", "stem"), ("contrastmask", "none")])
def test_detectors_stand_on_a_vit(model: str, freeze: str, vit: Path, labelled: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = [*SMALL, f"model.freeze={freeze}", "trainer.backbone_lr=1.0"]
    inputs = {"images": labelled.photos, "gt": labelled.gt, "weights": vit}
    train(out, settings, model=model, control={"max_steps": 1}, **inputs)
    after, before = read_checkpoint(out / "last.ckpt").state, load_file(vit)
    changed = {n for n, one in before.items() if not torch.equal(one, after[f"host.backbone.single.model.{n}"])}
    stem = {name for name in before if not name.startswith(("blocks.", "norm."))}
    moves = {"all": set(), "stem": set(before) - stem, "none": set(before)}[freeze]
    assert changed <= moves
    assert bool(changed) == bool(moves)
    assert bool(changed & stem) == (freeze == "none")
    report = evaluate_run(out, str(labelled.photos), str(labelled.gt), CPU).report
    assert set(report["class_agnostic"]) >= {"segm", "bbox"}
