"""The three query-based models through every command, from pseudo-labels to a picture of their queries."""

import json
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from typer.testing import CliRunner

from commands import complains
from corpus import write_scenes
from saliency_prompt.cli.app import app
from training_runs import small_weights

pytestmark = pytest.mark.slow
SMALL = [
    "data.short_side=64",
    "data.long_side=96",
    "data.workers=0",
    "model.queries=8",
    "model.channels=32",
    "model.hidden=64",
    "model.stages=2",
    "trainer.max_epochs=1",
    "trainer.precision=fp32",
]
LABELS = ["decode.short_side=128", "decode.long_side=256", "filters.min_score=0.0", "features.precision=fp32"]


def settings(values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def done(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Photographs, their annotations, and a data set of pseudo-labels of them."""
    folder = tmp_path_factory.mktemp("hosts")
    gt = write_scenes(folder / "photos", 4)
    done("generate", folder / "photos", "--out", folder / "data", "--weights", "lab-color", *settings(LABELS))
    return folder / "photos", gt, folder / "data"


@pytest.mark.parametrize("host", ["knet", "queryinst", "mask2former"])
def test_every_command(host: str, world: tuple[Path, Path, Path], tmp_path: Path) -> None:
    photos, gt, data = world
    narrow = ["model.encoder_hidden=64", "model.encoder_stages=1", "loss.points=64"] if host == "mask2former" else []
    common = ["--model", host, "--preset", "tiny", "--device", "cpu", *settings([*SMALL, *narrow])]
    annotated = ["--images", photos, "--gt", gt]
    weights = ["--weights", small_weights(), "--set", "prompt.target=fixed", "--set", "data.keep_ratio=false"]
    done("pretrain", data, "--out", tmp_path / "pre", *common, *weights)
    repeat = settings(["model.mask_logits=repeat"]) if host == "queryinst" else []
    said = done("finetune", tmp_path / "pre", *annotated, "--out", tmp_path / "fine", *common, *repeat)
    assert "began anew" in said
    assert ("mask_heads.0.logits.weight" in said) == (host == "queryinst" and not repeat)

    found, scores = tmp_path / "found.json", tmp_path / "scores.json"
    other = ["--short-side", "96", "--long-side", "128", "--threshold", "0.4", "--device", "cpu"]
    done("predict", tmp_path / "fine", photos, "--out", found, "--min-score", "0", *other)
    assert {one["category_id"] for one in json.loads(found.read_text())} <= {3, 7}
    done("evaluate", tmp_path / "fine", *annotated, "--json", scores, *other)
    assert json.loads(scores.read_text())["classes"]["images"] == 4
    done("kernels", tmp_path / "fine", "--images", photos, "--out", tmp_path / "kernels.png", "--device", "cpu")
    assert (tmp_path / "kernels.png").stat().st_size > 1000


def test_a_published_model_is_imported_and_used(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    torch.save({"model": MaskRCNN(backbone, 3).state_dict()}, tmp_path / "published.pth")
    gt = write_scenes(tmp_path / "photos", 1)
    words = ["import", tmp_path / "published.pth", "--as", "maskrcnn", "--out", tmp_path / "run", "--categories", gt]
    said = done(*words, *settings(["model.score_threshold=0", "model.proposals_test=20"]))
    assert "maskrcnn on resnet18, 2 classes" in said
    small = ["--short-side", "64", "--long-side", "96", "--min-score", "0", "--device", "cpu"]
    done("predict", tmp_path / "run", tmp_path / "photos", "--out", tmp_path / "found.json", *small)
    assert {one["category_id"] for one in json.loads((tmp_path / "found.json").read_text())} <= {3, 7}
    assert "looks like maskrcnn" in complains(*words[:3], "knet", "--out", tmp_path / "other")
