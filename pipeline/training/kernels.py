"""Where each query of a model finds its objects (Saliency Prompt, Figure 6)."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ...models.queries.host import AnyHost, QueryHost
from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...schemas.training.sections import SupervisedConfig
from ..sources import open_source
from .find import arithmetic, batches_of, normal_images
from .model import load_detector

KERNEL_SIDE = 200  # of a kernel map, in pixels


def draw_kernels(run: Path, images: str, out: Path, device: torch.device, *, limit: int) -> dict[str, float]:
    """Write a grid of all queries' mean masks, each scaled to its own range, and give `kernel_numbers`."""
    model = load_detector(run)
    host = model.module
    if not isinstance(host, QueryHost):
        raise UserError(f"{run} is a run of {model.card.model}, which has no queries to draw.")
    refs = list(islice(open_source(images).refs(), limit))
    maps = kernel_maps(host.to(device), model.config, refs, device)
    columns = int(np.ceil(np.sqrt(len(maps))))
    side, gap = maps.shape[1] // 2, 4
    rows = -(-len(maps) // columns)
    sheet = np.full((rows * (side + gap), columns * (side + gap), 3), 255, np.uint8)
    for place, one in enumerate(maps):
        low, high = float(one.min()), float(one.max())
        level = np.rint((one - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
        picture = cv2.applyColorMap(cv2.resize(level, (side, side), interpolation=cv2.INTER_AREA), cv2.COLORMAP_VIRIDIS)
        y, x = divmod(place, columns)
        sheet[y * (side + gap) : y * (side + gap) + side, x * (side + gap) : x * (side + gap) + side] = picture
    if not cv2.imwrite(str(out), sheet):
        raise UserError(f"{out} cannot be written: give a .png or .jpg in a folder that exists.")
    return kernel_numbers(maps)


@torch.inference_mode()
def kernel_maps(
    host: AnyHost, config: SupervisedConfig, refs: Sequence[ImageRef], device: torch.device
) -> npt.NDArray[np.float32]:
    """Mean mask of every query over photographs: [N, KERNEL_SIDE, KERNEL_SIDE] (Saliency Prompt, Figure 6)."""
    total = torch.zeros(host.num_queries, KERNEL_SIDE, KERNEL_SIDE)
    count = 0
    for batch, _ in batches_of(refs, config, host.multiple, lambda _: None):
        if batch is None:
            continue
        with arithmetic(config, device):
            probability = host.look(normal_images(host, batch, device), batch.resized)
        height, width = batch.images.shape[2:]
        for place, (rows, columns) in enumerate(batch.resized):
            h = max(1, round(probability.shape[2] * rows / height))
            w = max(1, round(probability.shape[3] * columns / width))
            inside = probability[place : place + 1, :, :h, :w]
            total += F.interpolate(inside, (KERNEL_SIDE, KERNEL_SIDE), mode="bilinear", align_corners=False)[0].cpu()
            count += 1
    if not count:
        raise UserError("No photograph could be read: give others.")
    return (total / count).numpy()


def kernel_numbers(maps_NSS: npt.NDArray[np.float32]) -> dict[str, float]:
    """How different the queries' places are: mean pairwise cosine, spread of mass centres, mean entropy."""
    flat = maps_NSS.reshape(len(maps_NSS), -1).astype(np.float64)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)
    n = len(unit)
    cosine = (np.square(unit.sum(0)).sum() - n) / max(1, n * (n - 1))
    share = flat / flat.sum(1, keepdims=True).clip(1e-12)
    grid = (np.arange(maps_NSS.shape[1]) + 0.5) / maps_NSS.shape[1]
    shaped = share.reshape(maps_NSS.shape)
    centres = np.stack([(shaped.sum(1) * grid).sum(1), (shaped.sum(2) * grid).sum(1)], axis=1)
    entropy = -(share * np.log(share.clip(1e-12))).sum(1).mean() / np.log(share.shape[1])
    return {
        "mean_pairwise_cosine": float(cosine),
        "centre_spread": float(centres.std(0).mean()),
        "mean_entropy": float(entropy),
    }
