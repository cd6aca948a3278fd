"""Normalised cuts of feature cells, in batches on the device; nothing waits for it.

Shi and Malik, Normalized Cuts and Image Segmentation, Eq. 6: minimise over x the cut by the second eigenvector of
(D - W) x = lambda D x. With v = D^(1/2) x that is the second largest one of D^(-1/2) W D^(-1/2).

Shape legend: B images, K = h * w cells, D channels, S steps of Lanczos, R rounds.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_WEAK = 1e-5  # weight of unlike cells, so that the graph is connected (TokenCut, section 3.2)
_STEPS = 24  # recall on photographs was the same from 16 to 40
_BENDS = 64


def cosine(features_BDhw: Tensor) -> Tensor:
    """Cosine similarity of all pairs of cells [B, K, K], fp32 whatever comes; zero vectors are like nothing."""
    cells_BKD = features_BDhw.flatten(2).transpose(1, 2).float()
    largest_B11 = cells_BKD.abs().amax((1, 2), keepdim=True).clamp_min(1e-12)
    unit_BKD = F.normalize(cells_BKD / largest_B11, dim=2, eps=1e-12)
    return torch.bmm(unit_BKD, unit_BKD.transpose(1, 2))


def hard_affinity(cosine_BKK: Tensor, tau: float) -> Tensor:
    """1 from `tau` on, nearly 0 below (CutLER, section 3.2, after TokenCut, Eq. 7)."""
    return torch.where(cosine_BKK >= tau, 1.0, _WEAK)


def tuned_affinity(cosine_BKK: Tensor, neighbours: int) -> Tensor:
    """exp((cosine - 1) / sqrt(t_i t_j)), t_i being 1 - the mean cosine of a cell to its nearest ones.

    The temperature follows the local density, as in Self-Tuning Spectral Clustering (Zelnik-Manor and Perona,
    section 2); the idea of tuning cosines by density for a single cut is CutOnce's (COLER, 2025).
    """
    count = min(neighbours + 1, cosine_BKK.shape[2])
    nearest_BKn = cosine_BKK.topk(count, dim=2).values[:, :, 1:]  # without the cell itself
    spread_BK = (1 - nearest_BKn.mean(2)).clamp_min(1e-3) if count > 1 else torch.ones_like(cosine_BKK[:, 0])
    temperature_BKK = (spread_BK.unsqueeze(2) * spread_BK.unsqueeze(1)).sqrt()
    return ((cosine_BKK - 1).clamp_max(0) / temperature_BKK).exp().clamp_min(_WEAK)


def second_eigenvector(weights_BKK: Tensor, free_BK: Tensor) -> Tensor:
    """X of the relaxed cut among the free cells [B, K], of unit length, 0 elsewhere; its sign means nothing.

    Lanczos with full orthogonalisation, from a fixed start, on (I + D^(-1/2) W D^(-1/2)) / 2, whose eigenvalues lie in
    0..1, with the known first eigenvector D^(1/2) 1 taken off. Products with the weights, which cost most, are fp32,
    all else is fp64: with hard affinities the eigenvalues of two objects differ by the weight of unlike cells.
    """
    free_BK = free_BK.double()
    degree_BK = _product(weights_BKK, free_BK) * free_BK
    scale_BK = torch.where(degree_BK > 0, degree_BK.clamp_min(1e-12).rsqrt(), 0.0)
    first_BK = F.normalize(degree_BK.sqrt(), dim=1, eps=1e-12)
    cells = weights_BKK.shape[1]
    places = torch.arange(cells, device=weights_BKK.device, dtype=torch.float64)
    start_BK = (torch.sin(places * 12.9898) * 43758.5453).frac() * free_BK
    steps = min(_STEPS, max(cells - 1, 1))
    basis_BSK = start_BK.new_zeros(len(start_BK), steps + 2, cells)
    image_BSK = start_BK.new_zeros(len(start_BK), steps, cells)
    basis_BSK[:, 0] = first_BK
    basis_BSK[:, 1] = F.normalize(_orthogonal(start_BK, basis_BSK[:, :1]), dim=1, eps=1e-12)
    for step in range(steps):
        v_BK = basis_BSK[:, step + 1]
        image_BSK[:, step] = 0.5 * (v_BK * free_BK + scale_BK * _product(weights_BKK, scale_BK * v_BK))
        known_BSK = basis_BSK[:, : step + 2]
        rest_BK = _orthogonal(_orthogonal(image_BSK[:, step], known_BSK), known_BSK)
        basis_BSK[:, step + 2] = F.normalize(rest_BK, dim=1, eps=1e-9)
    found_BSK = basis_BSK[:, 1:-1]
    small_BSS = torch.bmm(found_BSK, image_BSK.transpose(1, 2))
    small_BSS = (small_BSS + small_BSS.transpose(1, 2)) / 2
    ritz_BS = torch.linalg.eigh(small_BSS).eigenvectors[:, :, -1]
    v_BK = torch.bmm(ritz_BS.unsqueeze(1), found_BSK).squeeze(1)
    return F.normalize(v_BK * scale_BK, dim=1, eps=1e-12).float()


def _product(weights_BKK: Tensor, v_BK: Tensor) -> Tensor:
    """In fp32, given and taken as fp64."""
    return torch.bmm(weights_BKK, v_BK.float().unsqueeze(2)).squeeze(2).double()


def _orthogonal(v_BK: Tensor, space_BSK: Tensor) -> Tensor:
    along_BS1 = torch.bmm(space_BSK, v_BK.unsqueeze(2))
    return v_BK - torch.bmm(space_BSK.transpose(1, 2), along_BS1).squeeze(2)


def foreground(x_BK: Tensor, free_BK: Tensor, shape: tuple[int, int]) -> Tensor:
    """Soft foreground [B, K]: 0.5 at the mean of x, 1 at the free cell that is most of it, 0 for what is not free.

    Foreground is the side of the largest |x|, unless it holds three or four corners of the image (CutLER, section 3.2).
    """
    free = free_BK.float()
    count_B1 = free.sum(1, keepdim=True).clamp_min(1)
    mean_B1 = (x_BK * free).sum(1, keepdim=True) / count_B1
    above_BK = (x_BK - mean_B1) * free
    extreme_B1 = x_BK.abs().mul(free).argmax(1, keepdim=True)
    sign_B1 = torch.where(above_BK.gather(1, extreme_B1) < 0, -1.0, 1.0)
    side_BK = above_BK * sign_B1
    height, width = shape
    corners = [0, width - 1, (height - 1) * width, height * width - 1]
    held_B1 = (side_BK[:, corners] > 0).float().sum(1, keepdim=True)
    side_BK = torch.where(held_B1 >= 3, -side_BK, side_BK)
    top_B1 = side_BK.amax(1, keepdim=True).clamp_min(1e-12)
    return torch.where(free_BK, (0.5 + 0.5 * side_BK / top_B1).clamp(0, 1), 0.0)


def component(inside_Bhw: Tensor, seed_B: Tensor) -> Tensor:
    """The part of each mask that is connected (4 neighbours) to its seed cell; empty if the seed is outside.

    Fills runs of cells along rows and columns in turn; ways with more bends than `_BENDS` are cut short.
    """
    batch, height, width = inside_Bhw.shape
    grown_BK = torch.zeros_like(inside_Bhw, dtype=torch.float32).flatten(1)
    grown_BK = grown_BK.scatter(1, seed_B.unsqueeze(1), 1.0) * inside_Bhw.flatten(1)
    along_rows = _runs(inside_Bhw)
    along_columns = _runs(inside_Bhw.transpose(1, 2)).view(batch, width, height).transpose(1, 2).flatten(1)
    allowed_BK = inside_Bhw.flatten(1).float()
    for _ in range(_BENDS // 2):
        for run_BK in (along_rows, along_columns):
            touched = torch.zeros_like(grown_BK).scatter_reduce(1, run_BK, grown_BK, "amax")
            grown_BK = touched.gather(1, run_BK) * allowed_BK
    return grown_BK.view(batch, height, width) > 0


def _runs(inside_BRC: Tensor) -> Tensor:
    """Numbers from 0 on of the runs of equal cells along each row [B, R * C]."""
    changes = torch.ones_like(inside_BRC, dtype=torch.int64)
    changes[:, :, 1:] = inside_BRC[:, :, 1:] != inside_BRC[:, :, :-1]
    return changes.flatten(1).cumsum(1) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """Soft maps [B, R, h, w], inside from 0.5 on, and scores [B, R], 0 where a round found nothing new."""

    maps: Tensor
    scores: Tensor
    finite: Tensor


def mask_cuts(features_BDhw: Tensor, tau: float, rounds: int) -> Cuts:
    """One object a round, its cells left out of those that follow (MaskCut: CutLER, section 3.2)."""
    batch, _, height, width = features_BDhw.shape
    similar_BKK, finite_B = _similar(features_BDhw)
    weights_BKK = hard_affinity(similar_BKK, tau)
    free_BK = torch.ones(weights_BKK.shape[:2], dtype=torch.bool, device=weights_BKK.device)
    maps, scores = [], []
    for _ in range(rounds):
        soft_BK = foreground(second_eigenvector(weights_BKK, free_BK), free_BK, (height, width))
        inside = component((soft_BK >= 0.5).view(batch, height, width), soft_BK.argmax(1))
        scores.append(contrast(similar_BKK, inside.flatten(1)))
        maps.append(torch.where(inside, soft_BK.view(batch, height, width), soft_BK.view(batch, height, width) * 0))
        free_BK = free_BK & ~inside.flatten(1)
    return Cuts(torch.stack(maps, 1), torch.stack(scores, 1), finite_B)


def one_cut(features_BDhw: Tensor, neighbours: int, sharpening: float) -> Cuts:
    """A single cut; its objects are the connected parts of the map, pulled apart where it changes (after CutOnce).

    The map less `sharpening` times its gradient (central differences): thin bridges between objects fall below 0.5.
    """
    batch, _, height, width = features_BDhw.shape
    similar_BKK, finite_B = _similar(features_BDhw)
    weights_BKK = tuned_affinity(similar_BKK, neighbours)
    free_BK = torch.ones(weights_BKK.shape[:2], dtype=torch.bool, device=weights_BKK.device)
    soft_BK = foreground(second_eigenvector(weights_BKK, free_BK), free_BK, (height, width))
    soft_Bhw = soft_BK.view(batch, height, width)
    padded = F.pad(soft_Bhw.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    dx, dy = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    soft_Bhw = (soft_Bhw - sharpening * (dx.square() + dy.square()).sqrt() / 2).clamp_min(0)
    score_B = contrast(similar_BKK, (soft_Bhw >= 0.5).flatten(1))
    return Cuts(soft_Bhw.unsqueeze(1), score_B.unsqueeze(1), finite_B)


def contrast(similar_BKK: Tensor, inside_BK: Tensor) -> Tensor:
    """Mean cosine within a mask less that to what is outside, as a score 0..1 [B]; 0 for empty masks and full ones."""
    inside = inside_BK.to(similar_BKK.dtype)
    outside = 1 - inside
    to_inside_BK = torch.bmm(similar_BKK, inside.unsqueeze(2)).squeeze(2)
    count_B, rest_B = inside.sum(1), outside.sum(1)
    within_B = (to_inside_BK * inside).sum(1) / count_B.square().clamp_min(1)
    across_B = (to_inside_BK * outside).sum(1) / (count_B * rest_B).clamp_min(1)
    return torch.where((count_B > 0) & (rest_B > 0), ((within_B - across_B) / 2).clamp(1e-6, 1), 0.0)


def _similar(features_BDhw: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines, 0 for images with NaN or infinite features, and which images have none of these."""
    finite_B = torch.isfinite(features_BDhw.float().flatten(1).sum(1))
    clean = torch.where(finite_B.view(-1, 1, 1, 1), features_BDhw, torch.zeros_like(features_BDhw))
    return cosine(clean), finite_B
