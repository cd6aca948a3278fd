"""A trained model on photographs: predictions, COCO metrics, kernel maps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ...models.instances.host import QueryHost, Stage
from ...schemas.errors import UserError
from ...schemas.instances import InstanceConfig
from ...schemas.records import ImageRef
from ...stages.device import DTYPES, resolve_precision
from ...stages.evaluate import evaluate_coco
from ...stages.instances.inference import Instances, as_results, best_masks, find_instances
from ...stages.instances.labelled import CocoInstances
from ...stages.instances.samples import Batch, Sample, SampleError, collate, load_pixels, make_sample, padded_size

BATCH = 4  # images at once
WAITING = 32  # decoded images that wait for others of their size, at most
KERNEL_SIDE = 200  # of a kernel map, in pixels


@dataclass(frozen=True, slots=True)
class Scores:
    """COCO metrics in per cent: all of them, and the few that curves show."""

    report: dict[str, Any]
    numbers: dict[str, float]


def evaluate_model(
    host: QueryHost,
    config: InstanceConfig,
    categories: Sequence[int],
    images: str,
    gt: str,
    device: torch.device,
) -> Scores:
    """Mask and box AP on annotated images, with and without categories. The model must be in eval mode."""
    size = (config.data.short_side, config.data.long_side)
    data = CocoInstances(images, gt, size=size, empty=True, max_pixels=config.data.max_pixels)
    if set(data.categories) - set(categories) and len(categories) > 1:
        raise UserError(f"{gt} has categories that the model was not trained on: give a file with the same ones.")
    refs = data.refs()
    results: list[dict[str, Any]] = []
    for ref, found in find_in(host, config, refs, device):
        if found is not None:
            results += as_results(found, ref.image_id, list(categories) if len(categories) > 1 else None)
    agnostic = evaluate_coco(Path(gt), results, image_ids=data.image_ids)
    report: dict[str, Any] = {"class_agnostic": agnostic}
    numbers = {"AP_agnostic": agnostic["segm"]["AP"], "AR100_agnostic": agnostic["segm"]["AR100"]}
    if len(categories) > 1:
        usual = evaluate_coco(Path(gt), results, class_agnostic=False, image_ids=data.image_ids)
        report["classes"] = usual
        numbers |= {"AP": usual["segm"]["AP"], "AP50": usual["segm"]["AP50"], "box_AP": usual["bbox"]["AP"]}
    return Scores(report, {name: float(value or 0.0) for name, value in numbers.items()})


def find_in(
    host: QueryHost,
    config: InstanceConfig,
    refs: Sequence[ImageRef],
    device: torch.device,
    *,
    min_score: float = 0.0,
    skipped: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[ImageRef, Instances | None]]:
    """The objects in each photograph; None for one that cannot be used, which `skipped` is told of.

    Photographs come as their batches are done. What is found in one does not depend on the others.
    """
    for batch, usable in _batches(refs, config, skipped):
        if batch is not None:
            stage = run_host(host, config, batch, device)
            padded = (batch.images.shape[2], batch.images.shape[3])
        for place, ref in enumerate(usable):
            if batch is None:
                yield ref, None
                continue
            yield (
                ref,
                find_instances(
                    stage,
                    place,
                    padded=padded,
                    resized=batch.resized[place],
                    stored=batch.stored[place],
                    most=host.num_queries,
                    threshold=config.trainer.threshold,
                    min_score=min_score,
                ),
            )


@torch.inference_mode()
def run_host(host: QueryHost, config: InstanceConfig, batch: Batch, device: torch.device) -> Stage:
    """The last stage on a batch."""
    mean = torch.tensor(host.backbone.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(host.backbone.std, device=device).view(1, 3, 1, 1)
    dtype = DTYPES[resolve_precision(config.trainer.precision, device)]
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        initial = host.start(host.features((batch.images.to(device).float() - mean) / std))
        return host.refine(initial, initial.queries)[-1]


@torch.inference_mode()
def kernel_maps(
    host: QueryHost, config: InstanceConfig, refs: Sequence[ImageRef], device: torch.device
) -> npt.NDArray[np.float32]:
    """Mean mask of every query over photographs: [N, KERNEL_SIDE, KERNEL_SIDE] (Saliency Prompt, Figure 6)."""
    total = torch.zeros(host.num_queries, KERNEL_SIDE, KERNEL_SIDE)
    count = 0
    for batch, _ in _batches(refs, config, lambda _: None):
        if batch is None:
            continue
        probability = best_masks(run_host(host, config, batch, device))
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


def _batches(
    refs: Sequence[ImageRef], config: InstanceConfig, skipped: Callable[[str], None]
) -> Iterator[tuple[Batch | None, list[ImageRef]]]:
    """Photographs BATCH at a time; those that cannot be used come alone and without a batch.

    A batch holds images that are padded to the same size: what is found in one never depends on its company.
    """
    size = (config.data.short_side, config.data.long_side)
    waiting: dict[tuple[int, int], list[tuple[ImageRef, Sample]]] = {}
    for ref in refs:
        try:
            pixels, stored = load_pixels(ref, size, config.data.max_pixels)
        except SampleError as trouble:
            skipped(str(trouble))
            yield None, [ref]
            continue
        about = {"image_id": ref.image_id, "file_name": ref.file_name, "stored": stored}
        sample = make_sample(pixels, np.zeros((0, *pixels.shape[:2]), np.uint8), [], about)
        padded = padded_size(pixels.shape[0], pixels.shape[1])
        waiting.setdefault(padded, []).append((ref, sample))
        if len(waiting[padded]) == BATCH or sum(map(len, waiting.values())) == WAITING:
            yield _batch(waiting.pop(max(waiting, key=lambda one: len(waiting[one]))))
    for held in waiting.values():
        yield _batch(held)


def _batch(held: list[tuple[ImageRef, Sample]]) -> tuple[Batch, list[ImageRef]]:
    return collate([sample for _, sample in held]), [ref for ref, _ in held]
