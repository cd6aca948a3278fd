"""The model's parts: gradients, queues, the key encoder, split batch norm, Shuffling BN, MoCo-v2 as lambda = 0."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_prompt.models.backbones.base import Backbone
from saliency_prompt.models.densecl.encoder import Encoder
from saliency_prompt.models.densecl.model import MATCHERS, DenseCL
from saliency_prompt.models.densecl.norm import SplitBatchNorm2d, split_batch_norm
from saliency_prompt.models.densecl.queue import KeyQueue
from saliency_prompt.models.densecl.shuffle import encode_shuffled
from saliency_prompt.schemas.errors import UserError


class Tiny(Backbone):
    """One convolution of stride 32 with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = {"c5": 6}, {"c5": 32}
        self.conv, self.bn = nn.Conv2d(3, 6, 32, 32), nn.BatchNorm2d(6)

    def forward(self, images_B3HW: Tensor, level: str = "c5") -> dict[str, Tensor]:
        return {level: self.bn(self.conv(images_B3HW))}


def model(**options: object) -> DenseCL:
    torch.manual_seed(0)
    return DenseCL(Tiny(), **{"queue": 12, **options})


def images(seed: int = 0, count: int = 4, side: int = 96) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


ORDER = torch.tensor([2, 0, 3, 1])


def test_gradients_flow_into_the_query_encoder_alone() -> None:
    net = model()
    queues = [net.global_queue.keys.clone(), net.dense_queue.keys.clone()]
    net(images(), images(1), weight=0.5, order_G=ORDER).loss.backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in net.query.named_parameters() if "bias" not in n
    )
    assert all(p.grad is None and not p.requires_grad for p in net.key.parameters())
    assert not any(t.requires_grad for t in (net.global_queue.keys, net.dense_queue.keys))
    assert not torch.equal(queues[0], net.global_queue.keys)


@pytest.mark.parametrize(("weight", "head"), [(0.0, "dense_head"), (1.0, "global_head")])
def test_lambda_switches_a_loss_off(weight: float, head: str) -> None:
    net = model()
    out = net(images(), images(1), weight=weight, order_G=ORDER)
    assert out.loss.item() == pytest.approx((out.global_loss if weight == 0 else out.dense_loss).item())
    out.loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in getattr(net.query, head).parameters())


def test_moco_is_densecl_with_lambda_zero() -> None:
    dense, moco = model(), model(dense=False)
    same = {k: v for k, v in dense.state_dict().items() if "dense" not in k}
    moco.load_state_dict(same)
    losses = [m(images(), images(1), weight=0.0, order_G=ORDER) for m in (dense, moco)]
    assert losses[1].match is None
    assert losses[0].loss.item() == losses[1].loss.item()


def test_the_key_encoder_follows_slowly() -> None:
    net = model()
    with torch.no_grad():
        net.query.backbone.conv.weight.add_(1)
    before = net.key.backbone.conv.weight.clone()
    net.update_key(0.9)
    torch.testing.assert_close(net.key.backbone.conv.weight, 0.9 * before + 0.1 * net.query.backbone.conv.weight)


def test_the_grid_pools_projections_and_features_alike() -> None:
    net = model(grid=2)
    net.eval()
    out = net.query(images())
    assert out.dense.shape == (4, 128, 4)
    pooled = F.adaptive_avg_pool2d(net.query.backbone(images())["c5"], 2).flatten(2)
    torch.testing.assert_close(out.features, F.normalize(pooled, dim=1))
    torch.testing.assert_close(out.pooled.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("matching", list(MATCHERS))
def test_every_way_of_matching_runs(matching: str) -> None:
    out = model(matching=matching)(images(), images(1), weight=0.5, order_G=ORDER, random_nP=torch.rand(4, 9))
    assert out.match.shape == (4, 9)
    assert out.match.min() >= 0
    assert out.match.max() < 9


def test_matching_identical_views_by_features_finds_each_cell_itself() -> None:
    net = model().eval()
    out = net(images(), images(), weight=0.5, order_G=ORDER)
    assert torch.equal(out.match, torch.arange(9).expand(4, 9))


def test_the_queue_replaces_its_oldest_keys_and_wraps_around() -> None:
    queue = KeyQueue(2, 6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(queue.keys.norm(dim=0), torch.ones(6))
    for value in range(4):
        queue.enqueue(torch.full((2, 2), float(value)))
    assert queue.keys[0].tolist() == [3, 3, 1, 1, 2, 2]
    assert int(queue.filled) == 8


def test_a_loaded_queue_goes_on_where_it_was() -> None:
    queue = KeyQueue(2, 6, torch.Generator().manual_seed(0))
    queue.enqueue(torch.ones(2, 2))
    other = KeyQueue(2, 6, torch.Generator().manual_seed(1))
    other.enqueue(torch.zeros(4, 2)[:2])
    other.enqueue(torch.zeros(4, 2)[:2])
    other.load_state_dict(copy.deepcopy(queue.state_dict()))
    for q in (queue, other):
        q.enqueue(torch.full((2, 2), 5.0))
    assert torch.equal(queue.keys, other.keys)


def test_a_queue_that_the_batch_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match=r"model.queue to 4 or 8"):
        KeyQueue(2, 6, torch.Generator()).enqueue(torch.ones(4, 2))


def test_split_batch_norm_normalises_each_part_like_a_small_batch() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4) * 2 + 1
    split, whole = SplitBatchNorm2d(3, 3), nn.BatchNorm2d(3)
    expected = torch.cat([nn.BatchNorm2d(3)(part) for part in x.chunk(3)])
    torch.testing.assert_close(split(x), expected)
    for part in x.chunk(3):  # as far as one whole batch: (1 - 0.1) of the old mean is left
        whole.momentum = 1 - 0.9 ** (1 / 3)
        whole(part)
    torch.testing.assert_close(split.running_mean, whole.running_mean)
    split.eval()
    assert torch.equal(split(x), whole.eval()(x))
    with pytest.raises(ValueError, match="equal parts"):
        split.train()(x[:4])


def test_split_batch_norm_keeps_names_and_values() -> None:
    encoder = Encoder(Tiny(), dense=True)
    before = encoder.state_dict()
    after = split_batch_norm(copy.deepcopy(encoder), 2).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert list(after) == list(before)


def test_shuffling_is_undone_on_all_four_outputs() -> None:
    encoder = Encoder(Tiny(), dense=True).eval()
    plain = encoder(images())
    keys = encode_shuffled(encoder, images(), ORDER)
    for name in ("whole", "pooled", "dense", "features"):
        torch.testing.assert_close(getattr(keys.mine, name), getattr(plain, name))
    assert torch.equal(keys.all_whole, keys.mine.whole)
    assert not torch.allclose(plain.features, plain.features[ORDER])
