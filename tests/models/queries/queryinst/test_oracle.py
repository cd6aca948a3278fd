"""QueryInst against mmdetection's, with the same weights and features."""

from copy import deepcopy
from functools import cache

import pytest
import torch

from oracles import SIZES, STORED, Given, close, full_masks, read_oracle, shared_pyramid, shared_targets, unpack
from saliency_prompt.models.detector import Limits, alone
from saliency_prompt.models.queries.queryinst.criterion import gather_positives, mask_targets
from saliency_prompt.models.queries.queryinst.model import QueryInst
from saliency_prompt.models.queries.queryinst.names import MMDETECTION
from saliency_prompt.models.queries.queryinst.regions import roi_features, roi_levels
from saliency_prompt.models.renaming import rename

NAME = "mmdet_queryinst"


@cache
def model() -> QueryInst:
    io, weights = read_oracle("mmdet_resnet18w16_fpn")
    backbone = Given([io[f"backbone/c{level}"] for level in range(2, 6)])
    made = QueryInst(backbone, 5, num_queries=12, channels=64, stages=3, hidden=128)
    necks = {name: value for name, value in weights.items() if name.startswith("neck.") and "fpn_convs.4" not in name}
    state, unknown = rename({**read_oracle(NAME)[1], **necks}, MMDETECTION)
    assert unknown == []
    missing, left = made.load_state_dict(state, strict=False)
    assert left == []
    assert all(name.startswith("pyramid.") for name in missing)
    return made.eval()


def test_regions() -> None:
    io, _ = read_oracle(NAME)
    rois = io["roi/rois"]
    assert roi_levels(rois[:, 1:]).tolist() == io["roi/levels"].tolist()
    images, boxes, pyramid = rois[:, 0].long(), rois[:, 1:], shared_pyramid()
    close(roi_features(pyramid, images, boxes, 7), io["roi/bbox_feats7"])
    close(roi_features(pyramid, images[:8], boxes[:8], 14), io["roi/mask_feats14"])


def test_every_stage() -> None:
    io, _ = read_oracle(NAME)
    host = model()
    initial = host.start(shared_pyramid(), SIZES)
    for image in range(2):
        close(initial.boxes[image], io[f"proposals/{image}/bboxes"])
    for number, stage in enumerate(host.refine(initial, initial.queries)):
        close(stage.classes, io[f"stage{number}/cls_score"])
        torch.testing.assert_close(stage.boxes, io[f"stage{number}/decoded_bboxes"], atol=1e-3, rtol=1e-4)
        close(stage.queries, io[f"stage{number}/object_feats"])
        close(stage.attended, io[f"stage{number}/attn_feats"])


@pytest.mark.parametrize("mode", ["evalbn", "trainbn"])
def test_matches_targets_losses_and_gradients(mode: str) -> None:
    io, _ = read_oracle(NAME)
    host = deepcopy(model()).train(mode == "trainbn")  # batch norm moves
    pyramid = {name: value.clone().requires_grad_() for name, value in shared_pyramid().items()}
    initial = host.start(pyramid, SIZES)
    refined = host.refine(initial, initial.queries)
    targets = shared_targets()
    losses, pairs = host.criterion(initial, refined, targets, alone)
    for number, matched in enumerate(pairs):
        for image, (queries, objects) in enumerate(matched):
            theirs = (io[f"stage{number}/{image}/{kind}"].tolist() for kind in ("pos_inds", "pos_assigned_gt_inds"))
            assert set(zip(queries.tolist(), objects.tolist(), strict=True)) == set(zip(*theirs, strict=True))
        positives = gather_positives(targets, matched)
        crops = mask_targets(positives.masks, refined[number].boxes[positives.images, positives.queries], 28)
        order = (positives.images * 100 + positives.queries).argsort()  # theirs are by query
        assert torch.equal(crops[order], io[f"stage{number}/mask_targets_pos"])
        for ours, kind in (("class", "cls"), ("l1", "bbox"), ("giou", "iou"), ("mask", "mask")):
            mine, value = losses[f"{ours}_{number + 1}"].item(), io[f"{mode}/loss/s{number}.loss_{kind}"].item()
            assert mine == pytest.approx(value, rel=5e-4), (ours, number)
    torch.stack(list(losses.values())).sum().backward()
    for name, one in pyramid.items():
        torch.testing.assert_close(one.grad, io[f"{mode}/grad/{name}"], atol=1e-3, rtol=1e-3)
    start = f"{mode}/gradnorm/"
    norms = {"roi_head." + key.removeprefix(start): value for key, value in io.items() if key.startswith(start)}
    theirs, unknown = rename(norms, MMDETECTION)
    assert unknown == []
    mine = {name: p.grad.norm().item() for name, p in host.named_parameters() if name in theirs}
    assert len(mine) == len(theirs) > 150
    for name, value in theirs.items():
        # normalising by the statistics of two images multiplies what sums in another order differ by
        assert mine[name] == pytest.approx(value.item(), rel=1e-2 if mode == "trainbn" else 2e-3, abs=1e-4), name


def test_what_is_found() -> None:
    io, _ = read_oracle(NAME)
    host = model()
    with torch.inference_mode():
        initial = host.start(shared_pyramid(), SIZES)
        found = host.instances(initial, host.refine(initial, initial.queries)[-1], Limits(most=12))
    for image, one in enumerate(found):
        assert one.boxes is not None
        for kind, size in (("input", SIZES[image]), ("rescaled", STORED[image])):
            order = io[f"pred_{kind}/{image}/scores"].argsort(descending=True)
            close(one.scores, io[f"pred_{kind}/{image}/scores"][order])
            assert one.labels.tolist() == io[f"pred_{kind}/{image}/labels"][order].tolist()
            scale = torch.tensor([size[1] / SIZES[image][1], size[0] / SIZES[image][0]]).repeat(2)
            boxes = io[f"pred_{kind}/{image}/bboxes"][order]
            torch.testing.assert_close(one.boxes * scale, boxes, atol=2e-3, rtol=1e-4)
            theirs = unpack(io[f"pred_{kind}/{image}/masks_packed"], size[1])[order]
            mine = full_masks(one, (128, 160), SIZES[image], size)
            assert (mine != theirs).float().mean() < 1e-4
