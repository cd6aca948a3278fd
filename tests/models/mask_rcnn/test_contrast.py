"""The contrastive head as a whole: from features to its loss by loops, in both readings, and over two processes."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_prompt.models.detector import alone
from saliency_prompt.models.mask_rcnn.contrast import ContrastiveHead, Regions
from saliency_prompt.schemas.training.contrastmask import ContrastConfig

N, C, S = 4, 8, 28


@pytest.fixture
def regions() -> Regions:
    """Two objects with a mask and two without; the last without a sure pixel."""
    y, x = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
    disc = ((y - 13) ** 2 + (x - 15) ** 2 < 90).float()
    box = ((y > 4) & (y < 20) & (x > 6)).float()
    slope = (x / 27.0 + y / 27.0) / 2
    cams = torch.stack([slope, slope, slope, torch.full((S, S), 0.5)])
    return Regions(cams, torch.stack([disc, box, disc, box]), torch.tensor([True, True, False, False]))


def hard_pixels(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Edge pixels by numpy's gradient, and those within a squared distance of 2."""
    import numpy as np

    rows, columns = np.gradient(mask.numpy())
    edges = torch.from_numpy((rows != 0) | (columns != 0))
    reach = torch.zeros(S, S, dtype=torch.bool)
    for y, x in edges.nonzero().tolist():
        reach[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    return edges, reach


def sets_of(regions: Regions, n: int, code: bool) -> list[Tensor]:
    """Easy front, easy back, hard front, hard back of one region, all drawn."""
    cam = regions.cams[n]
    if not regions.known[n]:
        front, back = (cam > 0.9, cam < 0.1) if code else (cam >= 0.9, cam <= 0.1)
        return [front, back, front, back]
    inside = regions.masks[n] >= 0.5
    edges, reach = hard_pixels(regions.masks[n])
    if code:
        band = reach & ~edges
        return [inside & ~band, ~inside & ~reach, inside & band, ~inside & band]
    return [inside & ~reach, ~inside & ~reach, inside & reach, ~inside & reach]


def softmax_term(query: Tensor, own: Tensor, other: Tensor, tau: float, code: bool) -> Tensor:
    if code:
        own, other = own - query, other - query
    a, b = F.cosine_similarity(query[None], own), F.cosine_similarity(query[None], other)
    positive = (a if code else a / tau).exp()
    return -((a / tau).exp() / (positive + (b / tau).exp().sum())).log().mean()


@pytest.mark.parametrize("code", [False, True])
def test_the_loss_from_features_to_number(regions: Regions, code: bool) -> None:
    torch.manual_seed(0)
    reading = {"loss": "code", "tau": 0.3, "weight": 0.1} if code else {}
    head = ContrastiveHead(C, ContrastConfig(sigma=1.0, encoder_convs=1, projector_layers=2, **reading))
    features = torch.randn(N, C, S, S)
    z = head.projector(features).permute(0, 2, 3, 1)
    sets = [sets_of(regions, n, code) for n in range(N)]
    kept = [n for n in range(N) if all(int(one.sum()) >= 5 for one in sets[n])]
    assert kept == [0, 1, 2]
    sides = []
    for n in kept:
        known, inside = regions.known[n], regions.masks[n] >= 0.5
        front, back = (inside, ~inside) if known else sets[n][:2]
        sides.append((z[n][front].mean(0), z[n][back].mean(0)))
    queries = [torch.stack([side[k] for side in sides]).mean(0) for k in (0, 1)]
    tau = 0.3 if code else 0.7

    def four(keys: list[Tensor]) -> Tensor:
        ef, eb, hf, hb = keys
        return (
            softmax_term(queries[0], ef, eb, tau, code)
            + softmax_term(queries[0], hf, hb, 1 - tau, code)
            + softmax_term(queries[1], eb, ef, tau, code)
            + softmax_term(queries[1], hb, hf, 1 - tau, code)
        )

    each = [[z[n][one] for one in sets[n]] for n in kept]
    if code:  # keys of all regions together
        wanted = 0.1 * four([torch.cat([keys[k] for keys in each]) for k in range(4)])
    else:
        wanted = torch.stack([four(keys) for keys in each]).mean()
    torch.testing.assert_close(head.loss(features, regions, alone, math.inf), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.loss(features, regions, alone, 0.0), wanted / 4, rtol=1e-4, atol=1e-5)


def test_the_paper_averages_queries_over_regions_that_give_no_keys() -> None:
    """A mask of one pixel has both sides, hence a part in Eq. 2, but too few keys; the code leaves it out."""
    torch.manual_seed(0)
    masks = torch.zeros(2, S, S)
    masks[0, 5:20, 5:20] = 1
    masks[1, 3:5, 3:5] = 1
    both = Regions(masks, masks, torch.ones(2, dtype=torch.bool))
    one = Regions(masks[:1], masks[:1], torch.ones(1, dtype=torch.bool))
    features = torch.randn(2, C, S, S)
    for loss, same in (("paper", False), ("code", True)):
        head = ContrastiveHead(C, ContrastConfig(sigma=1.0, encoder_convs=1, loss=loss))
        together = head.loss(features, both, alone, math.inf)
        alone_ = head.loss(features[:1], one, alone, math.inf)
        assert torch.isclose(together, alone_, rtol=1e-4).item() == same


def test_lengths_of_features_do_not_matter_to_the_paper(regions: Regions) -> None:
    """Cosines forget lengths; a common factor on all projected vectors changes nothing."""
    head = ContrastiveHead(C, ContrastConfig(sigma=1.0, encoder_convs=1, projector_layers=1))
    features = torch.randn(N, C, S, S)
    once = head.loss(features, regions, alone, math.inf)
    torch.testing.assert_close(head.loss(3 * features, regions, alone, math.inf), once, rtol=1e-4, atol=1e-5)


_PROCESS = """
import sys, torch
import torch.distributed as dist
from saliency_prompt.models.mask_rcnn.contrast import ContrastiveHead, Regions
from saliency_prompt.schemas.training.contrastmask import ContrastConfig

rank, world, store, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.manual_seed(0)
head = ContrastiveHead(8, ContrastConfig(sigma=1.0, encoder_convs=1, projector_layers=2))
features, masks = torch.randn(5, 8, 28, 28), torch.zeros(5, 28, 28)
for n in range(5):
    masks[n, 4 + n : 18 + n, 5 : 20 - n] = 1
if world > 1:
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
mine = {0: slice(0, 4), 1: slice(4, 5), 2: slice(5, 5)}[rank] if world > 1 else slice(0, 5)

def average(count):
    count = count.clone()
    if world > 1:
        dist.all_reduce(count)
    return count.clamp_min(1) / world

known = torch.ones(5, dtype=torch.bool)
loss = head.loss(head.encode(features[mine]), Regions(masks[mine], masks[mine], known[mine]), average, 9.0)
loss.backward()
gradients = torch.cat([p.grad.flatten() for p in head.parameters() if p.grad is not None])
if world > 1:
    dist.all_reduce(gradients)
if rank == 0:
    torch.save(gradients / world, out)
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_three_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    """Of uneven shares, one of them without a region."""

    def run(world: int) -> Tensor:
        out = tmp_path / f"{world}.pt"
        started = [
            subprocess.Popen([sys.executable, "-c", _PROCESS, str(rank), str(world), str(tmp_path / "store"), str(out)])
            for rank in range(world)
        ]
        assert [one.wait() for one in started] == [0] * world
        return torch.load(out, weights_only=True)

    torch.testing.assert_close(run(3), run(1), rtol=1e-4, atol=1e-6)
