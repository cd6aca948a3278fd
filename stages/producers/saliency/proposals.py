"""The proposal steps as one function on a batch of feature maps: features in, ranked masks and vectors out.

No step waits for the device: shapes are fixed by the grid and the configuration, and what is not a mask is
marked rather than removed. (On the CPU, where looking costs nothing, empty rows are cut before NMS.)

Shape legend: B images, N seeds, M kept masks, H W feature cells, K = H*W, D channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ....models.nms import greedy_nms, matrix_nms
from ....schemas.labels.saliency import Config
from .normalize import normalize_maps
from .prompts import box_weights, pool_vectors, unit_length
from .saliency import SeedLayout, flatten_cells, seed_layout, seed_weights, similarity_maps
from .threshold import threshold_maps

MAX_MAP_VALUES = 1 << 28  # seeds times cells times images in one piece: 1 GB per fp32 intermediate


@dataclass(frozen=True, slots=True)
class Proposals:
    """The M best masks of each image, best first.

    score, score_raw [B, M] fp32, 0 where there is no mask; seed_index [B, M] int64 into the layout's seeds;
    saliency [B, M, H, W] fp32 soft maps; vectors: name -> [B, M, D] fp16; finite [B] bool: False where the
    backbone gave NaN or infinity, and then nothing else of that image means anything.
    """

    layout: SeedLayout
    score: Tensor
    score_raw: Tensor
    seed_index: Tensor
    saliency: Tensor
    vectors: dict[str, Tensor]
    finite: Tensor


def propose(features_BDHW: Tensor, config: Config, *, bf16_valued: bool = False) -> Proposals:
    """Saliency masks of a batch of equally sized feature maps [B, D, H, W] (Saliency Prompt Eq. 3-5).

    `bf16_valued` states that features are exactly representable in bf16 (see `saliency.similarity_maps`). Large
    grids (C3, C4) are worked off a few images at a time, to bound memory at some multiple of MAX_MAP_VALUES.
    """
    batch, _, height, width = features_BDHW.shape
    layout = seed_layout(height, width, config.saliency)
    chunk = max(1, MAX_MAP_VALUES // (layout.num_seeds * height * width))
    if chunk < batch:
        parts = [propose(part, config, bf16_valued=bf16_valued) for part in torch.split(features_BDHW, chunk)]
        return _concatenate(parts)
    cells_BKD = flatten_cells(features_BDHW)
    # one NaN or infinity makes the sum one; such an image has no mask, since NaN passes no threshold
    finite_B = torch.isfinite(cells_BKD.flatten(1).sum(1))

    sim_BNK = similarity_maps(cells_BKD, layout, config.saliency.similarity, bf16_valued=bf16_valued)
    maps_BNK = normalize_maps(sim_BNK, config.normalize.scope, config.normalize.eps)
    found = threshold_maps(maps_BNK, config.threshold.tau, config.threshold.min_cells)
    order_BN, score_BN = suppress(found.masks, found.maskness, config)

    # masks kept: the best by decayed score; a stable sort makes ties a matter of seed order alone
    ranked = score_BN.sort(dim=1, descending=True, stable=True)
    kept_BM = ranked.indices[:, : config.nms.max_masks]
    score_BM = ranked.values[:, : config.nms.max_masks]
    seed_BM = order_BN.gather(1, kept_BM)
    saliency_BMK = maps_BNK.gather(1, seed_BM.unsqueeze(2).expand(-1, -1, maps_BNK.shape[2]))

    vectors = {}
    if config.prompts.seed:
        weights_BMK = seed_weights(layout, cells_BKD.device)[seed_BM]
        vectors["seed"] = unit_length(pool_vectors(cells_BKD, weights_BMK)).half()
    saliency_BMHW = saliency_BMK.view(*saliency_BMK.shape[:2], height, width)
    if config.prompts.box_mean:
        boxes_BMK = box_weights(saliency_BMHW >= config.threshold.tau)
        vectors["box_mean"] = pool_vectors(cells_BKD, boxes_BMK).clamp(-65504, 65504).half()
    return Proposals(layout, score_BM, found.maskness.gather(1, seed_BM), seed_BM, saliency_BMHW, vectors, finite_B)


def _concatenate(parts: list[Proposals]) -> Proposals:
    """Proposals of parts of a batch as one; the CPU may have cut them to different numbers of masks."""
    most = max(part.score.shape[1] for part in parts)

    def join(tensors: list[Tensor]) -> Tensor:
        missing = [[0, 0] * (t.ndim - 2) + [0, most - t.shape[1]] for t in tensors]
        return torch.cat([F.pad(t, pad) for t, pad in zip(tensors, missing, strict=True)])

    return Proposals(
        layout=parts[0].layout,
        score=join([part.score for part in parts]),
        score_raw=join([part.score_raw for part in parts]),
        seed_index=join([part.seed_index for part in parts]),
        saliency=join([part.saliency for part in parts]),
        vectors={name: join([part.vectors[name] for part in parts]) for name in parts[0].vectors},
        finite=torch.cat([part.finite for part in parts]),
    )


def suppress(masks_BNK: Tensor, maskness_BN: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """NMS over an image's masks: their order by maskness [B, N'] and their scores after NMS [B, N'].

    NMS only ever lowers a score, and only by masks of higher maskness: what is below the final cut can
    neither survive nor change what does, and is left out.
    """
    filters = config.filters
    floor = max(filters.min_maskness or 0.0, 0.0 if filters.keep_best else filters.min_score or 0.0)
    passed_BN = maskness_BN >= floor
    if filters.keep_best:
        passed_BN |= maskness_BN >= maskness_BN.amax(1, keepdim=True)
    ranked = torch.where(passed_BN, maskness_BN, 0).sort(dim=1, descending=True, stable=True)
    order_BN, scores_BN = ranked.indices, ranked.values
    if masks_BNK.device.type == "cpu":
        useful = int((scores_BN > 0).sum(1).max())
        order_BN, scores_BN = order_BN[:, :useful], scores_BN[:, :useful]
    sorted_BNK = masks_BNK.gather(1, order_BN.unsqueeze(2).expand(-1, -1, masks_BNK.shape[2]))
    if config.nms.kind == "greedy":
        return order_BN, greedy_nms(sorted_BNK, scores_BN, iou_threshold=config.nms.iou_threshold)
    return order_BN, matrix_nms(
        sorted_BNK, scores_BN, kernel=config.nms.kernel, gaussian_coeff=config.nms.gaussian_coeff
    )
