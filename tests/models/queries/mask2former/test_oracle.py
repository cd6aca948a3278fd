"""Mask2Former against Hugging Face's, with the same weights, features and random points."""

from collections import deque
from functools import cache

import pytest
import torch
from torch import Tensor

from oracles import SIZES, STORED, Given, close, full_masks, read_oracle, shared_targets, unpack
from saliency_prompt.models.detector import Limits, alone
from saliency_prompt.models.queries.mask2former.model import Mask2Former
from saliency_prompt.models.queries.mask2former.names import TRANSFORMERS
from saliency_prompt.models.renaming import rename

NAME = "hf_mask2former_resnet"


@cache
def model() -> Mask2Former:
    io, weights = read_oracle(NAME)
    backbone = Given([io[f"backbone/stage{i}"] for i in range(1, 5)])
    made = Mask2Former(
        backbone, 5, num_queries=16, channels=64, hidden=128, encoder_stages=3, encoder_hidden=128, points=112
    )
    state, unknown = rename(weights, TRANSFORMERS)
    assert unknown == []
    missing, left = made.load_state_dict(state, strict=False)
    assert missing == []
    assert all(name.startswith("backbone.") for name in left)
    return made.eval()


def test_pixel_decoder() -> None:
    io, _ = read_oracle(NAME)
    pyramid = model().features(torch.zeros(2, 3, 128, 160))
    for place, name in enumerate(("p5", "p4", "p3")):
        close(pyramid[name], io[f"pixel_decoder/multi_scale/{place}"])
    close(pyramid["masks"], io["pixel_decoder/mask_features"])


def test_every_prediction() -> None:
    io, _ = read_oracle(NAME)
    host = model()
    initial = host.start(host.features(torch.zeros(2, 3, 128, 160)), SIZES)
    predictions = [initial, *host.refine(initial, initial.queries)]
    assert len(predictions) == 10
    for number, one in enumerate(predictions):
        close(one.classes, io[f"decoder/{number}/class_logits"])
        close(one.masks, io[f"decoder/{number}/mask_logits"])
        close(one.queries.transpose(0, 1), io[f"decoder_hidden/{number}"])


def test_matches_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    io, weights = read_oracle(NAME)
    host = model()
    drawn: deque[Tensor] = deque()
    for layer in range(10):
        first, second = (io[f"match/{layer}/img{image}/gt"] for image in range(2))
        order = torch.cat([first.argsort(), len(first) + second.argsort()])  # theirs are by query, ours by object
        drawn += [io[f"points/{layer}/match_img{image}"] for image in range(2)]
        drawn += [io[f"points/{layer}/loss_{kind}"][order] for kind in ("oversample", "random")]
    monkeypatch.setattr(host, "draw", lambda *_: drawn.popleft())
    initial = host.start(host.features(torch.zeros(2, 3, 128, 160)), SIZES)
    refined = host.refine(initial, initial.queries)
    losses, pairs = host.criterion(initial, refined, shared_targets(), alone)
    assert not drawn
    for number, matched in enumerate(pairs, start=1):
        for image, (queries, objects) in enumerate(matched):
            found = set(zip(queries.tolist(), objects.tolist(), strict=True))
            theirs = (io[f"match/{number}/img{image}/{kind}"].tolist() for kind in ("pred", "gt"))
            assert found == set(zip(*theirs, strict=True))
    for ours, kind in (("class", "cross_entropy"), ("mask", "mask"), ("dice", "dice")):
        for layer in range(10):
            mine = losses[f"{ours}_{layer}" if layer else f"initial_{ours}"].item()
            theirs = io[f"loss/loss_{kind}" if layer == 9 else f"loss/loss_{kind}_{layer}"].item()
            assert mine == pytest.approx(theirs, rel=5e-4), (ours, layer)
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(io["loss/total"].item(), rel=5e-4)
    host.zero_grad()
    total.backward()
    norms = {key.removeprefix("gradnorm/"): value for key, value in io.items() if key.startswith("gradnorm/")}
    names, _ = rename({key: value.expand(weights[key].shape) for key, value in norms.items()}, TRANSFORMERS)
    checked = 0
    for name, parameter in host.named_parameters():
        if "self_attention.in_proj" in name:
            theirs = [part.flatten()[0].item() for part in names[name].chunk(3)]
            mine = [part.norm().item() for part in parameter.grad.chunk(3)]
            assert mine == pytest.approx(theirs, rel=2e-3, abs=1e-4), name
        else:
            assert parameter.grad.norm().item() == pytest.approx(names[name].flatten()[0].item(), rel=2e-3, abs=1e-4), (
                name
            )
        checked += 1
    assert checked > 200


def test_what_is_found() -> None:
    """Post-processing of mmdetection on the same logits."""
    post, _ = read_oracle("mmdet_mask2former_postprocess")
    host = model()
    with torch.inference_mode():
        found = host.find(torch.zeros(2, 3, 128, 160), SIZES, Limits(most=20))
    for image, (one, size, stored) in enumerate(zip(found, SIZES, STORED, strict=True)):
        assert one.maps.shape == (20, 128, 160)
        order = post[f"input/{image}/scores"].argsort(descending=True)
        close(one.scores, post[f"input/{image}/scores"][order])
        assert one.labels.tolist() == post[f"input/{image}/labels"][order].tolist()
        theirs = unpack(post[f"input/{image}/masks_packed"], size[1])[order]
        mine = one.maps[:, : size[0], : size[1]] > 0.5
        assert (mine != theirs).float().mean() < 1e-4
        # stored sizes: probabilities are resized where mmdetection resizes logits, at a quarter of the stride
        packed = unpack(post[f"ori/{image}/masks_packed"], stored[1])
        by_label = post[f"ori/{image}/scores"].argsort(descending=True)
        full = full_masks(one, (128, 160), size, stored)
        assert (full != packed[by_label]).float().mean() < 0.01
