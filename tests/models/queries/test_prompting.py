"""Prompts on their way into a host."""

from itertools import product
from unittest.mock import patch

import pytest
import torch

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.models.detector import Targets
from saliency_prompt.models.queries.host import empty_share
from saliency_prompt.models.queries.knet.model import KNet
from saliency_prompt.models.queries.mask2former.model import Mask2Former
from saliency_prompt.models.queries.prompting import Prompting, pool_targets, start_with_prompts
from saliency_prompt.models.queries.queryinst.model import QueryInst
from saliency_prompt.schemas.errors import UserError

SIZES = [(64, 96)] * 2


@pytest.fixture(scope="module")
def knet() -> KNet:
    torch.manual_seed(0)
    return KNet(build_backbone("resnet18"), 1, num_queries=5, channels=32, hidden=64).eval()


def objects(count: int) -> Targets:
    masks = torch.zeros(count, 64, 96, dtype=torch.uint8)
    boxes = torch.zeros(count, 4)
    for i in range(count):
        masks[i, 5 : 30 + i, 10 * i : 10 * i + 25] = 1
        boxes[i] = torch.tensor([10 * i, 5, 10 * i + 25, 30 + i])
    return Targets(masks, torch.zeros(count, dtype=torch.int64), boxes, torch.ones(count))


@pytest.mark.parametrize("inject_at", ["before_head", "after_head"])
def test_the_head_runs_once(knet: KNet, inject_at: str) -> None:
    pyramid = knet.features(torch.randn(2, 3, 64, 96))
    with patch.object(KNet, "start", autospec=True, side_effect=KNet.start) as start:
        start_with_prompts(knet, pyramid, SIZES, [objects(2), objects(1)], Prompting(inject_at=inject_at))
    assert start.call_count == 1


def test_before_the_head_prompts_move_the_first_masks_and_after_it_queries_alone(knet: KNet) -> None:
    pyramid = knet.features(torch.randn(2, 3, 64, 96))
    targets = [objects(2), objects(1)]
    plain = knet.start(pyramid, SIZES)
    before = start_with_prompts(knet, pyramid, SIZES, targets, Prompting(inject_at="before_head", dropout=0))
    after = start_with_prompts(knet, pyramid, SIZES, targets, Prompting(inject_at="after_head", dropout=0))
    assert not torch.allclose(before.initial.masks, plain.masks)
    assert torch.equal(before.queries, before.initial.queries)
    assert torch.equal(after.initial.masks, plain.masks)
    assert not torch.allclose(after.queries, plain.queries)
    assert 0 < after.ratio < before.ratio  # of learned queries the prompt is a larger part


def test_matched_prompts_are_as_long_as_what_they_are_added_to(knet: KNet) -> None:
    pyramid = knet.features(torch.randn(2, 3, 64, 96))
    for inject_at in ("before_head", "after_head"):
        how = Prompting(inject_at=inject_at, scale="match", dropout=0)
        found = start_with_prompts(knet, pyramid, SIZES, [objects(2), objects(1)], how)
        assert float(found.ratio) == pytest.approx(1, abs=1e-4)


def test_images_without_objects_are_as_without_prompts(knet: KNet) -> None:
    pyramid = knet.features(torch.randn(2, 3, 64, 96))
    for inject_at in ("before_head", "after_head"):
        found = start_with_prompts(knet, pyramid, SIZES, [objects(0)] * 2, Prompting(inject_at=inject_at))
        assert torch.equal(found.queries, knet.start(pyramid, SIZES).queries)
        assert float(found.ratio) == 0


@pytest.mark.parametrize("host", [KNet, QueryInst, Mask2Former])
def test_every_way_of_pooling_on_every_host(host: type[KNet] | type[QueryInst] | type[Mask2Former]) -> None:
    made = host(build_backbone("resnet18"), 1, num_queries=5, channels=32, hidden=64, stages=1)
    pyramid = made.features(torch.randn(2, 3, 64, 96))
    for name, stride in made.prompt_levels.items():
        assert pyramid[name].shape[2:] == (64 // stride, 96 // stride)
    for levels, pooling in product(("one", "multi"), ("box", "masked_mean")):
        how = Prompting(levels=levels, pooling=pooling)
        prompts, valid = pool_targets(made, pyramid, [objects(2), objects(1)], how)
        assert prompts.shape == (2, 2, 32)
        assert valid.tolist() == [[True, True], [True, False]]
        assert not prompts.requires_grad
    small = next(iter(made.prompt_levels))  # these objects belong to the finest map
    assert torch.allclose(
        pool_targets(made, pyramid, [objects(1)] * 2, Prompting(levels="multi"))[0][0, 0],
        pyramid[small][
            0,
            :,
            5 // made.prompt_levels[small] : -(-30 // made.prompt_levels[small]),
            : -(-25 // made.prompt_levels[small]),
        ].mean((1, 2)),
        atol=1e-4,
    )


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(UserError, match="match_on=initial"):
        Prompting(inject_at="before_head", match_on="assembled")
    with pytest.raises(UserError, match="choose one of"):
        Prompting(assigner="nearest")


def test_the_share_of_masks_without_a_cell() -> None:
    masks = torch.full((1, 4, 3, 3), -1.0)
    masks[0, 0, 1, 1] = 1
    assert float(empty_share(masks)) == 0.75


def test_which_hosts_tell_it(knet: KNet) -> None:
    initial = knet.start(knet.features(torch.randn(2, 3, 64, 96)), SIZES)
    found = knet.empty_masks(initial)
    assert 0 <= float(found) <= 1
    queryinst = QueryInst(build_backbone("resnet18"), 1, num_queries=5, channels=32, hidden=64, stages=1)
    pyramid = queryinst.features(torch.randn(2, 3, 64, 96))
    assert queryinst.empty_masks(queryinst.start(pyramid, SIZES)) is None
