"""K-Net against its authors' program, with the same weights and features."""

from functools import cache

import pytest
import torch

from oracles import SIZES, STORED, Given, close, full_masks, read_oracle, shared_pyramid, shared_targets, unpack
from saliency_prompt.models.detector import Limits, alone
from saliency_prompt.models.queries.knet.criterion import shrink_masks
from saliency_prompt.models.queries.knet.model import KNet
from saliency_prompt.models.queries.knet.names import OFFICIAL
from saliency_prompt.models.renaming import rename

NAME = "knet"


@cache
def model() -> KNet:
    io, neck = read_oracle("mmdet_resnet18w16_fpn")
    backbone = Given([io[f"backbone/c{level}"] for level in range(2, 6)])
    made = KNet(backbone, 5, num_queries=16, channels=64, hidden=128)
    weights = read_oracle(NAME)[1]
    neck = {name: value for name, value in neck.items() if name.startswith("neck.") and ".4." not in name}
    state, unknown = rename({**weights, **neck}, OFFICIAL)
    assert unknown == []
    assert len(weights) == 168
    state["kernels"] = state["kernels"].flatten(1)
    made.load_state_dict(state)
    return made.eval()


def test_pyramid() -> None:
    for name, wanted in shared_pyramid().items():
        close(model().features(torch.zeros(2, 3, 128, 160))[name], wanted)


def test_before_the_stages() -> None:
    io, _ = read_oracle(NAME)
    initial = model().start(shared_pyramid(), SIZES)
    close(initial.features, io["kernel_head/x_feats"])
    close(initial.masks, io["kernel_head/mask_preds"])
    close(initial.semantic, io["kernel_head/seg_preds"])
    queries = io["kernel_head/proposal_feats"].flatten(2)
    torch.testing.assert_close(initial.queries, queries, atol=1e-3, rtol=1e-4)


def test_every_stage() -> None:
    io, _ = read_oracle(NAME)
    host = model()
    initial = host.start(shared_pyramid(), SIZES)
    for number, stage in enumerate(host.refine(initial, initial.queries)):
        close(stage.classes, io[f"stage{number}/cls_score"])
        close(stage.masks, io[f"stage{number}/mask_preds"])
        close(stage.queries, io[f"stage{number}/object_feats"].flatten(2))


def test_matches_losses_and_gradients() -> None:
    io, _ = read_oracle(NAME)
    host, targets = model(), shared_targets()
    for image, target in enumerate(targets):
        torch.testing.assert_close(shrink_masks(target.masks), io[f"gt{image}/masks_quarter"])
    pyramid = {name: value.clone().requires_grad_() for name, value in shared_pyramid().items()}
    initial = host.start(pyramid, SIZES)
    losses, pairs = host.criterion(initial, host.refine(initial, initial.queries), targets, alone)
    for number, matched in enumerate(pairs):
        for image, (queries, objects) in enumerate(matched):
            theirs = io[f"assign/stage{number}/img{image}"]
            mine = torch.zeros_like(theirs)
            mine[queries] = objects + 1
            assert mine.tolist() == theirs.tolist()
    names = {"initial_mask": "loss_rpn_mask", "initial_dice": "loss_rpn_dice", "semantic": "loss_rpn_seg"}
    names |= {f"{kind}_{n + 1}": f"s{n}_loss_{kind}" for n in range(3) for kind in ("mask", "dice")}
    names |= {f"class_{n + 1}": f"s{n}_loss_cls" for n in range(3)}
    assert set(names) == set(losses)
    for mine, theirs in names.items():
        assert losses[mine].item() == pytest.approx(io[f"loss/{theirs}"].item(), rel=5e-4), mine
    host.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    for name, one in pyramid.items():
        torch.testing.assert_close(one.grad, io[f"grad/{name}"], atol=1e-3, rtol=1e-3)
    start = "gradnorm/"
    norms = {key.removeprefix(start): value for key, value in io.items() if key.startswith(start)}
    theirs_by_name, unknown = rename(norms, OFFICIAL)
    assert unknown == []
    mine_by_name = {name: p.grad.norm().item() for name, p in host.named_parameters() if name in theirs_by_name}
    assert len(mine_by_name) == 168
    for name, value in theirs_by_name.items():
        assert mine_by_name[name] == pytest.approx(value.item(), rel=2e-3, abs=1e-4), name


def test_what_is_found() -> None:
    io, _ = read_oracle(NAME)
    host = model()
    with torch.inference_mode():
        initial = host.start(shared_pyramid(), SIZES)
        found = host.instances(initial, host.refine(initial, initial.queries)[-1], Limits(most=16))
    for image, one in enumerate(found):
        close(one.scores, io[f"pred/{image}/scores"])
        assert one.labels.tolist() == io[f"pred/{image}/labels"].tolist()
        assert one.sources.tolist() == io[f"pred/{image}/query"].tolist()
        theirs = unpack(io[f"pred/{image}/masks_packed"], STORED[image][1])
        assert (full_masks(one, (128, 160), SIZES[image], STORED[image]) != theirs).float().mean() < 1e-4
