"""Outside judges: torchvision's whole Mask R-CNN with the same weights, and its RoI heads as recorded."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from region_objects import images, objects, plain
from saliency_prompt.models.backbones.base import Backbone
from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Limits, Targets, alone
from saliency_prompt.models.mask_rcnn import rois
from saliency_prompt.models.mask_rcnn.model import MaskRCNN, build
from saliency_prompt.models.mask_rcnn.names import EPSILON, choose_classes, fit, rename, with_epsilon
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.contrastmask import MaskRCNNConfig

ORACLE = Path(__file__).resolve().parents[4] / "shared/data/oracles"
NAMES = ["p2", "p3", "p4", "p5"]


class BodyWithPyramid(nn.Module):
    """Ours under torchvision's names."""

    def __init__(self, ours: MaskRCNN) -> None:
        super().__init__()
        self.body, self.fpn, self.out_channels = ours.backbone, ours.fpn, 32

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body(x)
        return self.fpn(OrderedDict((f"p{level[1]}", maps[level]) for level in ("c2", "c3", "c4", "c5")))


def torchvisions(ours: MaskRCNN) -> TorchvisionMaskRCNN:
    """Torchvision's model around the same backbone and pyramid, with heads of its own and none of its resizing."""
    anchors = AnchorGenerator(tuple((4 * s,) for s in (4, 8, 16, 32, 64)), ((0.5, 1.0, 2.0),) * 5)
    return TorchvisionMaskRCNN(
        BodyWithPyramid(ours),
        min_size=96,
        max_size=128,
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(32, 3),
        rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_test=50,
        rpn_pre_nms_top_n_train=100,
        rpn_post_nms_top_n_train=100,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
        box_roi_pool=MultiScaleRoIAlign(NAMES, 7, 2),
        box_head=TwoMLPHead(32 * 49, 64),
        box_predictor=FastRCNNPredictor(64, 4),
        mask_roi_pool=MultiScaleRoIAlign(NAMES, 14, 2),
        mask_head=MaskRCNNHeads(32, (32,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(32, 32, 4),
    )


@pytest.fixture
def pair() -> tuple[MaskRCNN, TorchvisionMaskRCNN]:
    """Both with the same weights, spread so that classes, boxes and masks differ."""
    ours = plain()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.startswith(("rpn.head", "roi_heads.box_predictor")):
                parameter.normal_(std=0.1)
    theirs = torchvisions(ours)
    theirs.rpn.load_state_dict(ours.rpn.state_dict())
    theirs.roi_heads.load_state_dict(ours.roi_heads.state_dict())
    return ours, theirs


def test_detections_are_torchvisions(pair: tuple[MaskRCNN, TorchvisionMaskRCNN]) -> None:
    ours, theirs = (one.eval() for one in pair)
    batch = images()
    with torch.inference_mode():
        found = ours.find(batch, [(96, 128)] * 2, Limits())
        wanted = theirs(list(batch))
    for mine, yours in zip(found, wanted, strict=True):
        assert len(mine) == len(yours["scores"]) > 10
        assert len(mine.labels.unique()) > 1
        torch.testing.assert_close(mine.scores, yours["scores"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.boxes, yours["boxes"], atol=1e-4, rtol=1e-4)
        assert torch.equal(mine.labels + 1, yours["labels"])
        pasted = paste_masks_in_image(mine.maps[:, None], mine.boxes, (96, 128))
        torch.testing.assert_close(pasted, yours["masks"], atol=1e-4, rtol=1e-4)


def test_losses_are_torchvisions(pair: tuple[MaskRCNN, TorchvisionMaskRCNN]) -> None:
    ours, theirs = (one.train() for one in pair)
    ours.backbone.eval()
    theirs.transform.torch_choice = lambda sizes: sizes[0]  # draws from the generator even when there is one size
    batch, targets = images(), [objects(3), objects(2)]
    as_dicts = [{"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks} for t in targets]
    torch.manual_seed(3)
    mine = ours.losses(batch, [(96, 128)] * 2, targets, alone)
    torch.manual_seed(3)
    yours = theirs(list(batch), as_dicts)
    names = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert mine.keys() == names.keys()
    for name, their_name in names.items():
        torch.testing.assert_close(mine[name], yours[their_name], atol=1e-5, rtol=1e-4)


def as_first_released(name: str) -> str:
    """The name that a parameter had before torchvision put blocks around convolutions."""
    if "backbone.fpn" in name:
        name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    for i in range(4):
        name = name.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
    return name


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_of_torchvision_loads(pair: tuple[MaskRCNN, TorchvisionMaskRCNN], old: bool) -> None:
    ours, theirs = pair
    given = {name: torch.randn(value.shape) for name, value in theirs.state_dict().items()}
    state = given
    if old:  # normalisation was frozen, which counts no batches
        state = {as_first_released(k): v for k, v in given.items() if not k.endswith("num_batches_tracked")}
    ours.load_state_dict(fit(rename({"model": state}), ours.state_dict()), strict=not old)
    for name in ("backbone.layer4.1.conv2.weight", "fpn.layer_blocks.2.0.bias", "fpn.inner_blocks.0.0.weight"):
        there = name.replace("fpn.", "backbone.fpn.").replace("backbone.layer", "backbone.body.layer")
        assert torch.equal(ours.state_dict()[name], given[there])
    for name in ("roi_heads.mask_head.3.0.weight", "rpn.head.conv.0.0.bias", "roi_heads.box_head.fc6.weight"):
        assert torch.equal(ours.state_dict()[name], given[name])


def test_the_released_model_has_our_names_and_shapes_and_its_second_version_has_not() -> None:
    with torch.device("meta"):
        first = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
        second = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict()
        ours = build(build_backbone("resnet50"), 90, MaskRCNNConfig()).state_dict()
    assert fit(rename(first), ours).keys() == ours.keys()
    with pytest.raises(UserError, match="with the same heads"):
        fit(rename(second), ours)


def test_what_does_not_fit_is_listed(pair: tuple[MaskRCNN, TorchvisionMaskRCNN]) -> None:
    ours, _ = pair
    state = dict(ours.state_dict())
    state["roi_heads.box_head.fc6.weight"] = torch.zeros(128, 1568)
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(9, 64)
    state["surplus"] = state.pop("rpn.head.cls_logits.bias")
    with pytest.raises(UserError) as error:
        fit(state, ours.state_dict(), ours.class_layers())
    for part in (
        "1 missing (first rpn.head.cls_logits.bias)",
        "surplus",
        "fc6.weight (128, 1568) instead of (64, 1568)",
    ):
        assert part in str(error.value)
    assert "cls_score" not in str(error.value)
    del state["surplus"], state["roi_heads.box_head.fc6.weight"]
    state |= {k: ours.state_dict()[k] for k in ("rpn.head.cls_logits.bias", "roi_heads.box_head.fc6.weight")}
    taken = fit(state, ours.state_dict(), ours.class_layers())
    assert set(ours.state_dict()) - set(taken) == {"roi_heads.box_predictor.cls_score.weight"}


def test_rows_of_classes_are_chosen() -> None:
    state = {
        "roi_heads.box_predictor.cls_score.weight": torch.arange(5.0)[:, None].expand(5, 3),
        "roi_heads.box_predictor.bbox_pred.bias": torch.arange(20.0),
        "roi_heads.mask_predictor.mask_fcn_logits.weight": torch.arange(5.0).view(5, 1, 1, 1),
        "rpn.head.cls_logits.bias": torch.arange(3.0),
    }
    chosen = choose_classes(state, [0, 3, 1])
    assert chosen["roi_heads.box_predictor.cls_score.weight"][:, 0].tolist() == [0, 3, 1]
    assert chosen["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7]
    assert chosen["roi_heads.mask_predictor.mask_fcn_logits.weight"].flatten().tolist() == [0, 3, 1]
    assert torch.equal(chosen["rpn.head.cls_logits.bias"], state["rpn.head.cls_logits.bias"])
    with pytest.raises(UserError, match="none of number 5"):
        choose_classes(state, [0, 5])


def test_another_epsilon_moves_into_the_variance() -> None:
    norm = nn.BatchNorm2d(4, eps=0.0).eval()
    norm.running_var = torch.tensor([1e-6, 1e-3, 0.5, 40.0])
    same = nn.BatchNorm2d(4, eps=EPSILON).eval()
    same.load_state_dict(with_epsilon(norm.state_dict(), 0.0))
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(same(x), norm(x), rtol=1e-4, atol=1e-4)


class Recorded(Backbone):
    """Stands for a backbone whose pyramid was recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = dict.fromkeys(("c2", "c3", "c4", "c5"), 8)
        self.strides = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


@pytest.fixture(scope="module")
def recorded() -> tuple[MaskRCNN, dict[str, Tensor], dict[str, Tensor]]:
    """Our heads with the oracle's weights, its input and its output."""
    if not (ORACLE / "tv_maskrcnn_roi_heads").is_dir():
        pytest.skip(f"the oracles are not at {ORACLE}")
    options = MaskRCNNConfig(channels=64, hidden=64, score_threshold=0.02)
    ours = build(Recorded(), 5, options).eval()
    weights = load_file(ORACLE / "tv_maskrcnn_roi_heads/weights.safetensors")
    missing, left_over = ours.roi_heads.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    assert not missing
    assert not left_over
    return (
        ours,
        load_file(ORACLE / "mmdet_resnet18w16_fpn/io.safetensors"),
        load_file(ORACLE / "tv_maskrcnn_roi_heads/io.safetensors"),
    )


def test_region_heads_against_the_oracle(recorded: tuple[MaskRCNN, dict[str, Tensor], dict[str, Tensor]]) -> None:
    ours, given, wanted = recorded
    pyramid = {name: given[f"fpn/{name}"] for name in NAMES}
    proposals = [wanted["proposals/0"], wanted["proposals/1"]]
    close = {"atol": 1e-4, "rtol": 1e-4}
    with torch.inference_mode():
        boxes = ours._boxes(pyramid, proposals, (128, 160))
        torch.testing.assert_close(boxes.logits, wanted["box/class_logits"], **close)
        torch.testing.assert_close(boxes.deltas, wanted["box/regression"], **close)
        masks, _ = ours._masks(pyramid, proposals, (128, 160), None)
        torch.testing.assert_close(masks, wanted["mask/logits"], **close)
        found = rois.detect(
            ours.roi_heads,
            boxes.logits,
            boxes.deltas,
            proposals,
            [(128, 160), (112, 144)],
            above=0.02,
            least=0.0,
            most=10,
        )
        maps, _ = ours._masks(pyramid, [one.boxes for one in found], (128, 160), None)
        chosen = rois.choose_masks(maps, torch.cat([one.labels for one in found])).sigmoid()
    for i, one in enumerate(found):
        for name in ("boxes", "scores"):
            torch.testing.assert_close(getattr(one, name), wanted[f"det/{i}/{name}"], **close)
        assert torch.equal(one.labels, wanted[f"det/{i}/labels"])
        torch.testing.assert_close(chosen[10 * i : 10 * i + 10], wanted[f"det/{i}/masks28"][:, 0], **close)


def test_region_losses_against_the_oracle(recorded: tuple[MaskRCNN, dict[str, Tensor], dict[str, Tensor]]) -> None:
    ours, given, wanted = recorded
    pyramid = {name: given[f"fpn/{name}"].requires_grad_() for name in NAMES}
    each = [[wanted[f"train/{i}/{part}"] for i in (0, 1)] for part in ("sampled_boxes", "matched_gt", "labels")]
    sampled = rois.Sampled(*each, [wanted[f"train/{i}/regression_targets"] for i in (0, 1)])
    targets = [
        Targets(given[f"gt{i}/masks"], given[f"gt{i}/labels"], given[f"gt{i}/bboxes"], torch.ones(5 - 2 * i))
        for i in (0, 1)
    ]
    boxes = ours._boxes(pyramid, sampled.boxes, (128, 160))
    positives = rois.positive_regions(sampled, targets, 28)
    losses = rois.box_losses(boxes.logits, boxes.deltas, sampled, positives, alone)
    logits, _ = ours._masks(pyramid, positives.boxes, (128, 160), None)
    losses["mask"] = rois.mask_loss(logits, positives, alone)
    for name, their_name in {"class": "loss_classifier", "box": "loss_box_reg", "mask": "loss_mask"}.items():
        torch.testing.assert_close(losses[name], wanted[f"loss/{their_name}"], atol=1e-5, rtol=1e-4)
    sum(losses.values()).backward()
    for name in NAMES:
        torch.testing.assert_close(pyramid[name].grad, wanted[f"grad/{name}"], atol=1e-5, rtol=1e-3)


def test_pooling_knows_its_scale_where_padding_is_wide() -> None:
    """Torchvision infers a level's scale from the largest image of the first batch."""
    ours = plain()
    pyramid = {name: torch.randn(1, 32, 128 // s, 128 // s) for name, s in zip(NAMES, (4, 8, 16, 32), strict=True)}
    box = [torch.tensor([[4.0, 4.0, 36.0, 40.0]])]
    pooled = rois.pool_regions(ours.roi_heads.box_roi_pool, pyramid, box, (128, 128))
    assert ours.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    assert pooled.shape == (1, 32, 7, 7)
