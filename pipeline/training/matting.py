"""Mattes of the objects in photographs, and their errors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ...models.detector import Limits
from ...models.solo.matting import MattingSolo
from ...schemas.errors import UserError
from ...schemas.records import ImageRef
from ...schemas.training.sections import SupervisedConfig
from ...stages.instances.matte_samples import MatteImages
from ...stages.instances.samples import load_pixels
from ...stages.matting import Floats, MatteErrors, composite, encode_alpha, matte_errors
from ..sources import open_source
from .find import arithmetic, batches_of, normal_images
from .model import LoadedDetector
from .scores import Scores

COLUMNS = {"sad": "SAD", "mse": "MSE", "gradient": "gradient", "connectivity": "connectivity"}


def find_mattes(
    model: MattingSolo,
    config: SupervisedConfig,
    refs: Sequence[ImageRef],
    device: torch.device,
    *,
    min_score: float = 0.0,
    skipped: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[ImageRef, list[Floats] | None]]:
    """The alphas [H, W] in each photograph, best first, at its stored size; None for one that cannot be used."""
    for batch, usable in batches_of(refs, config, model.multiple, skipped):
        if batch is None:
            yield from ((ref, None) for ref in usable)
            continue
        with arithmetic(config, device):
            found = model.find(
                normal_images(model, batch, device),
                batch.resized,
                Limits(config.trainer.max_detections or model.most, min_score),
            )
        for ref, one, resized, stored in zip(usable, found, batch.resized, batch.stored, strict=True):
            yield ref, [_at(matte, resized, stored) for matte in one.maps]


def _at(matte_HW: torch.Tensor, resized: tuple[int, int], stored: tuple[int, int]) -> Floats:
    """A matte of the padded image at the stored size."""
    inside = matte_HW.float()[None, None, : resized[0], : resized[1]]
    large = F.interpolate(inside, stored, mode="bilinear", align_corners=False, antialias=True)
    alpha: Floats = large[0, 0].clamp(0, 1).cpu().numpy().astype(np.float64)
    return alpha


def evaluate_mattes(model: LoadedDetector, images: str, mattes: str, device: torch.device) -> Scores:
    """Mean errors over the mattes of a folder, each against the found one that overlaps it most, or against nothing."""
    module, config = model.module.to(device), model.config
    assert isinstance(module, MattingSolo)
    size = (config.data.short_side, config.data.long_side)
    data = MatteImages(list(open_source(images).refs()), mattes, size=size, max_pixels=config.data.max_pixels)
    places = {ref.file_name: place for place, ref in enumerate(data.refs())}
    errors: list[MatteErrors] = []
    unusable: dict[str, str] = {}
    for ref, found in find_mattes(module, config, data.refs(), device):
        try:
            pixels, stored = load_pixels(ref, None, config.data.max_pixels)
            del pixels
            truths = data.alphas(places[ref.file_name], stored)
        except UserError as trouble:
            unusable[ref.file_name] = str(trouble)
            continue
        for truth in truths:
            nothing = np.zeros_like(truth)
            errors.append(matte_errors(max(found or (), key=lambda one: overlap(one, truth), default=nothing), truth))
    if not errors:
        raise UserError(f"No photograph with a matte could be used: {next(iter(unusable.values()))}")
    means = {name: float(np.mean([asdict(one)[name] for one in errors])) for name in COLUMNS}
    row = {title: means[name] for name, title in COLUMNS.items()}
    return Scores({**means, "mattes": len(errors), "unusable": unusable}, means, {"mean": row}, unusable)


def overlap(one_HW: Floats, other_HW: Floats) -> float:
    """IoU of two soft masks."""
    union = float(np.maximum(one_HW, other_HW).sum())
    return float(np.minimum(one_HW, other_HW).sum()) / union if union else 0.0


def write_mattes(
    model: LoadedDetector,
    refs: Sequence[ImageRef],
    out: Path,
    device: torch.device,
    skip: Callable[[str], None],
    min_score: float,
) -> int:
    """Write the alphas of each photograph as OUT/NAME_0.png and so on, best first, and previews over green.

    Previews lie in OUT/previews. Gives the number of alphas.
    """
    module, config = model.module.to(device), model.config
    assert isinstance(module, MattingSolo)
    count = 0
    try:
        (out / "previews").mkdir(parents=True, exist_ok=True)
        for ref, found in find_mattes(module, config, refs, device, min_score=min_score, skipped=skip):
            if not found:
                continue
            pixels, _ = load_pixels(ref, None, config.data.max_pixels)
            name = Path(ref.file_name).with_suffix("").as_posix().replace("/", "_")
            for number, alpha in enumerate(found):
                (out / f"{name}_{number}.png").write_bytes(encode_alpha(alpha))
                preview = composite(pixels, alpha)[:, :, ::-1]
                (out / "previews" / f"{name}_{number}.png").write_bytes(cv2.imencode(".png", preview)[1].tobytes())
                count += 1
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another --out.") from None
    return count
