"""Checkpoints of other programs come in as runs, and give what those programs gave."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from published_names import mask2former_of_detectron2
from safetensors.torch import save_file
from torch import Tensor

from narrow_resnet import NAME, SPEC
from oracles import SIZES, read_oracle
from saliency_prompt.models.backbones.registry import BACKBONES
from saliency_prompt.models.detector import Limits
from saliency_prompt.models.imports import SOURCES, recognise
from saliency_prompt.models.queries.knet.model import KNet
from saliency_prompt.models.queries.mask2former.model import Mask2Former
from saliency_prompt.models.queries.queryinst.model import QueryInst
from saliency_prompt.models.solo.model import Solo
from saliency_prompt.pipeline.training.importing import Wishes, class_names, find_file, import_checkpoint
from saliency_prompt.pipeline.training.model import LoadedDetector, load_detector
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.run import Run

CLOSE = {"atol": 2e-4, "rtol": 1e-3}
WISHES = Wishes(arch=NAME)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, NAME, SPEC)


def whole(name: str) -> dict[str, Tensor]:
    """The head's weights with those of the backbone and pyramid that it was run on."""
    return {**read_oracle("mmdet_resnet18w16_fpn")[1], **read_oracle(name)[1]}


def come_in(state: dict[str, Tensor], model: str, folder: Path, wishes: Wishes = WISHES) -> LoadedDetector:
    save_file(state, folder / "published.safetensors")
    found = import_checkpoint(folder / "published.safetensors", model, folder / "run", wishes)
    assert found.unknown == []
    return load_detector(folder / "run")


def image() -> Tensor:
    return read_oracle("mmdet_resnet18w16_fpn")[0]["image"]


def test_knet(tmp_path: Path) -> None:
    io, _ = read_oracle("knet")
    model = come_in(whole("knet"), "knet", tmp_path)
    host = model.module
    assert isinstance(host, KNet)
    assert (host.num_queries, host.channels, len(host.stages), model.card.num_classes) == (16, 64, 3, 5)
    initial = host.start(host.features(image()), SIZES)
    last = host.refine(initial, initial.queries)[-1]
    torch.testing.assert_close(last.classes, io["stage2/cls_score"], **CLOSE)
    torch.testing.assert_close(last.masks, io["stage2/mask_preds"], **CLOSE)


def test_queryinst(tmp_path: Path) -> None:
    io, _ = read_oracle("mmdet_queryinst")
    host = come_in(whole("mmdet_queryinst"), "queryinst", tmp_path).module
    assert isinstance(host, QueryInst)
    assert len(host.stages) == 3
    initial = host.start(host.features(image()), SIZES)
    last = host.refine(initial, initial.queries)[-1]
    torch.testing.assert_close(last.classes, io["stage2/cls_score"], **CLOSE)
    torch.testing.assert_close(last.boxes, io["stage2/decoded_bboxes"], atol=5e-3, rtol=1e-3)


def test_mask2former(tmp_path: Path) -> None:
    io, weights = read_oracle("hf_mask2former_resnet")
    labels = {str(i): f"thing {i}" for i in range(5)}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    save_file(weights, tmp_path / "model.safetensors")
    found = import_checkpoint(tmp_path, "mask2former", tmp_path / "run", WISHES)
    assert found.unknown == [name for name in weights if name == "criterion.empty_weight"]
    assert found.card.class_names == tuple(labels.values())
    host = load_detector(tmp_path / "run").module
    assert isinstance(host, Mask2Former)
    initial = host.start(host.features(image()), SIZES)
    last = host.refine(initial, initial.queries)[-1]
    torch.testing.assert_close(last.classes, io["decoder/9/class_logits"], **CLOSE)
    torch.testing.assert_close(last.masks, io["decoder/9/mask_logits"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_mask2former_of_its_authors(tmp_path: Path, suffix: str) -> None:
    io, weights = read_oracle("hf_mask2former_resnet")
    path = (tmp_path / "published").with_suffix(suffix)
    theirs = mask2former_of_detectron2(weights)
    if suffix == ".pkl":  # as detectron2 publishes its models
        arrays = {name: value.numpy() for name, value in theirs.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party", "matching_heuristics": True}))
    else:
        torch.save({"model": theirs, "trainer": None, "iteration": 7}, path)
    found = import_checkpoint(path, "mask2former", tmp_path / "run", WISHES)
    assert found.unknown == ["criterion.empty_weight"]
    host = load_detector(tmp_path / "run").module
    assert isinstance(host, Mask2Former)
    assert (host.num_queries, host.channels, host.num_classes) == (16, 64, 5)
    initial = host.start(host.features(image()), SIZES)
    last = host.refine(initial, initial.queries)[-1]
    torch.testing.assert_close(last.classes, io["decoder/9/class_logits"], **CLOSE)
    torch.testing.assert_close(last.masks, io["decoder/9/mask_logits"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("name", "model"), [("mmdet_solov2", "solov2"), ("mmdet_decoupled_solo", "decoupled-solo")])
def test_solo(name: str, model: str, tmp_path: Path) -> None:
    io, _ = read_oracle(name)
    sizes = ["model.grids=[12, 10, 8, 6, 4]", "model.feature_groups=16"]
    host = come_in(whole(name), model, tmp_path, Wishes(arch=NAME, overrides=sizes)).module
    assert isinstance(host, Solo)
    maps = host.pyramid(host.backbone(image()))
    for number, level in enumerate(host.head(maps)):
        torch.testing.assert_close(level.classes, io[f"train_forward/cls_preds/{number}"], **CLOSE)


def test_torchvisions_mask_rcnn(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    theirs = torchvision.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).eval()
    wishes = Wishes(overrides=["model.score_threshold=0"])
    model = come_in(theirs.state_dict(), "maskrcnn", tmp_path, wishes)
    assert (model.card.arch, model.card.num_classes, model.card.categories) == ("resnet50", 3, (1, 2, 3))
    ours = model.module.state_dict()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours[name.replace("backbone.body.", "backbone.").replace("backbone.fpn.", "fpn.")], value)


def test_the_run_is_one_like_any_other(tmp_path: Path) -> None:
    model = come_in(whole("knet"), "knet", tmp_path)
    with torch.inference_mode():
        found = model.module.find(image(), SIZES, Limits(10))
    assert [len(one) for one in found] == [10, 10]
    assert Run(tmp_path / "run").read_card() == model.card
    with pytest.raises(UserError, match="holds a run already"):
        import_checkpoint(tmp_path / "published.safetensors", "knet", tmp_path / "run", WISHES)


def test_what_has_no_counterpart_is_said_by_name(tmp_path: Path) -> None:
    extra = {"roi_head.extra.weight": torch.zeros(2), "neck.fpn_convs.4.conv.weight": torch.zeros(64, 64, 3, 3)}
    path = tmp_path / "published.pth"
    torch.save({"state_dict": {**whole("knet"), **extra}, "meta": {"CLASSES": tuple("abcde")}}, path)
    found = import_checkpoint(path, "knet", tmp_path / "run", WISHES)
    assert found.unknown == ["neck.fpn_convs.4.conv.weight", "roi_head.extra.weight"]
    assert found.card.class_names == tuple("abcde")
    assert json.loads((tmp_path / "run" / "import.json").read_text())["unknown"] == found.unknown


def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path) -> None:
    state = whole("knet")
    for name in ("roi_head.mask_head.1.fc_cls.bias", "backbone.layer1.0.conv1.weight"):
        short = {key: value for key, value in state.items() if key != name}
        save_file(short, tmp_path / "short.safetensors")
        with pytest.raises(UserError, match=r"1 tensors are missing \(.*\)\. Give"):
            import_checkpoint(tmp_path / "short.safetensors", "knet", tmp_path / "run", WISHES)
    assert not (tmp_path / "run").exists()
    save_file({k: v for k, v in state.items() if "init_kernels" in k}, tmp_path / "short.safetensors")
    with pytest.raises(UserError, match="is missing"):
        import_checkpoint(tmp_path / "short.safetensors", "knet", tmp_path / "run", WISHES)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    save_file(whole("knet"), path)
    with pytest.raises(UserError, match=r"no checkpoint of queryinst .it looks like knet"):
        import_checkpoint(path, "queryinst", tmp_path / "run", WISHES)
    save_file({"encoder.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"names begin with encoder\.weight"):
        import_checkpoint(path, "knet", tmp_path / "run", WISHES)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(UserError):
        import_checkpoint(path, "knet", tmp_path / "run", WISHES)
    with pytest.raises(UserError, match="no import for 'yolo'"):
        import_checkpoint(path, "yolo", tmp_path / "run", WISHES)


def test_a_setting_that_contradicts_the_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    save_file(whole("knet"), path)
    with pytest.raises(UserError, match="have another shape"):
        import_checkpoint(path, "knet", tmp_path / "run", Wishes(arch=NAME, overrides=["model.channels=128"]))


def test_categories_of_a_file(tmp_path: Path) -> None:
    path, gt = tmp_path / "published.safetensors", tmp_path / "gt.json"
    save_file(whole("knet"), path)
    listed = [{"id": i, "name": f"c{i}"} for i in (9, 1, 3, 5, 7)]
    images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]
    gt.write_text(json.dumps({"images": images, "annotations": [], "categories": listed}))
    card = import_checkpoint(path, "knet", tmp_path / "run", Wishes(arch=NAME, categories=gt)).card
    assert card.categories == (1, 3, 5, 7, 9)
    assert card.class_names == ("c1", "c3", "c5", "c7", "c9")
    gt.write_text(json.dumps({"images": images, "annotations": [], "categories": listed[:2]}))
    with pytest.raises(UserError, match="2 categories and the checkpoint 5"):
        import_checkpoint(path, "knet", tmp_path / "other", Wishes(arch=NAME, categories=gt))


def test_names_of_classes() -> None:
    assert class_names({"meta": {"dataset_meta": {"classes": ("a", "b")}}}) == ["a", "b"]
    assert class_names({"meta": {"CLASSES": ["a"]}}) == ["a"]
    assert class_names({"meta": {"epoch": 3}}) == class_names({}) == []


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither"):
        find_file(tmp_path)


def test_every_source_tells_its_files_from_others() -> None:
    first = {
        "knet": "rpn_head.init_kernels.weight",
        "queryinst": "rpn_head.init_proposal_features.weight",
        "mask2former": "sem_seg_head.pixel_decoder.mask_features.weight",
        "maskrcnn": "roi_heads.box_predictor.cls_score.weight",
    }
    for model, name in first.items():
        assert recognise({name: torch.zeros(1)}) == [model]
    solos = recognise({"mask_head.conv_cls.weight": torch.zeros(1)})
    assert set(solos) | set(first) == set(SOURCES)
