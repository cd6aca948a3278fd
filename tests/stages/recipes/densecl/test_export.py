"""From a run to a backbone file: tensors, card, the same bytes every time. And the picture of its correspondences."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from corpus import write_photos
from saliency_prompt.pipeline.training.correspondence import picture
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.stages.recipes.densecl.export import export_backbone
from saliency_prompt.stages.training.checkpoints import read_checkpoint
from saliency_prompt.store.weights import sha256_of
from training_runs import densecl

SMALL = ["photos.side=48", "augment.size=64", "model.arch=resnet18", "model.queue=16", "model.warmup_steps=1"]
LOOP = ["optim.batch_size=4", "optim.epochs=1", "train.precision=fp32"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("export")
    write_photos(base / "photos", 9, height=48, width=64)
    assert densecl(base / "photos", base / "run", [*SMALL, *LOOP]).finished
    return base / "run"


def test_the_file_is_the_query_backbone_in_half_precision(run: Path, tmp_path: Path) -> None:
    export_backbone(run, tmp_path / "new" / "mine.safetensors")
    loaded = load_backbone(str(tmp_path / "new" / "mine.safetensors"))
    trained = read_checkpoint(run / "last.ckpt").state
    assert loaded.arch == "resnet18"
    for name, tensor in loaded.module.state_dict().items():
        wanted = trained[f"model.query.backbone.{name}"]
        assert torch.equal(tensor, wanted.half().float() if wanted.is_floating_point() else wanted), name


def test_the_card_says_what_it_is(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    card = export_backbone(run, out)
    assert card == json.loads(out.with_suffix(".json").read_text())
    assert (card["sha256"], card["bytes"]) == (sha256_of(out), out.stat().st_size)
    assert (card["method"], card["steps"], card["epochs"], card["photos_count"]) == ("DenseCL", 2, 1.0, 9)
    page = out.with_suffix(".md").read_text()
    assert card["sha256"] in page
    assert "lambda 0.5 after 1 steps with 0" in page


def test_every_export_has_the_same_bytes(run: Path, tmp_path: Path) -> None:
    assert len({export_backbone(run, tmp_path / f"{i}.safetensors")["sha256"] for i in range(8)}) == 1


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        export_backbone(run, tmp_path / "mine.pth")
    with pytest.raises(UserError, match="holds no training run"):
        export_backbone(tmp_path, tmp_path / "mine.safetensors")
    with pytest.raises(UserError, match=r"ends in \.png or \.jpg"):
        picture(run, str(run.parent / "photos" / "photo_0000.jpg"), tmp_path / "match.xyz")


def test_matches_are_mutual_and_drawn_by_whether_they_are_right(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "match.png"
    photo = str(run.parent / "photos" / "photo_0000.jpg")
    found = picture(run, photo, out, threshold=-1.0, size=128)
    assert found.grid == 4
    assert len(set(found.first)) == len(set(found.second)) == len(found.first) > 0
    strict = picture(run, photo, out, threshold=float(np.median(found.similarity)), size=128)
    assert 0 < len(strict.first) < len(found.first)
    assert set(zip(strict.first, strict.second, strict=True)) <= set(zip(found.first, found.second, strict=True))
    drawn = cv2.imread(str(out))[..., ::-1]
    assert drawn.shape == (128, 128 + 8 + 128, 3)
    row, column = divmod(int(strict.second[-1]), 4)
    end = drawn[row * 32 + 16, 128 + 8 + column * 32 + 16].astype(int)
    assert (end[1] > end[0]) == strict.right[-1]
