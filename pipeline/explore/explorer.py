"""One photograph through the steps of the main job, kept at hand so that any seed can be asked about.

Shape legend: N seeds, K = H*W feature cells, M kept masks, h w pixels of the picture shown.
"""

import base64
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...schemas.errors import UserError
from ...schemas.labels.saliency import Config
from ...schemas.load import parse_config
from ...schemas.records import ImageRecord, ImageRef
from ...stages.decode import DecodedImage, decode_image, labelled, resized_shape
from ...stages.features import FeatureExtractor
from ...stages.overlay import palette_color
from ...stages.pixels import Arriving, arrival, stack_pixels
from ...stages.producers.featured import LoadedProducer
from ...stages.producers.saliency.assemble import encode_proposals, pinned
from ...stages.producers.saliency.normalize import normalize_maps
from ...stages.producers.saliency.proposals import propose, suppress
from ...stages.producers.saliency.saliency import SeedLayout, flatten_cells, seed_layout, similarity_maps
from ...stages.producers.saliency.threshold import threshold_maps
from ...stages.read import BadImage, read_image_bytes
from ..engine import load_image

SHOWN_SIDE = 960  # long side of the picture on the page, in pixels
KEPT = 6  # results held: going back to a setting is free
HELD_BYTES = 1 << 30  # of them together
MAX_SHORT_SIDE = 1600  # in pixels, as on the page's slider; more only if the configuration itself has more
MAX_MAP_VALUES = 1 << 26  # N * K of a photograph, likewise: 256 MiB for each of the five copies in flight

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything about one photograph under one configuration.

    maps [N, K] in 0..1; maskness, score [N] before and after NMS; `survivors` as the main job would store them, with
    `survivor_seeds` [M] and their masks on the grid [M, K].
    """

    image: DecodedImage
    layout: SeedLayout
    maps: Tensor
    maskness: Tensor
    score: Tensor
    survivors: ImageRecord
    survivor_seeds: list[int]
    survivor_masks: Tensor
    config: Config
    seconds: float


class Explorer:
    """Photographs, a backbone and a configuration from which settings may depart. Safe to share between threads."""

    def __init__(
        self, refs: Sequence[ImageRef], config: Config, loaded: LoadedProducer[Config], device: torch.device
    ) -> None:
        """`config` must be resolved (no `auto`)."""
        self.refs = list(refs)
        self.config = config
        self._extract = FeatureExtractor(loaded.backbone, config.features, device)
        self._admit = loaded.admission(config)
        self._device = device
        self._lock = threading.Lock()  # one computation at a time: they share the cores
        self._features: OrderedDict[Hashable, tuple[DecodedImage, Tensor]] = OrderedDict()
        self._analyses: OrderedDict[Hashable, Analysis] = OrderedDict()

    def settings(self, tau: float, coefficient: float, short_side: int) -> Config:
        """The configuration with what the sliders say. Raises UserError if a value is out of its range."""
        most = max(MAX_SHORT_SIDE, self.config.decode.short_side)
        if short_side > most:
            raise UserError(f"A short side of {str(short_side)[:10]} pixels is above {most}: choose a smaller one.")
        values = self.config.model_dump(mode="json")
        longest = self.config.decode.long_side / self.config.decode.short_side
        values["decode"] |= {"short_side": short_side, "long_side": round(short_side * longest)}
        values["threshold"]["tau"] = tau
        values["nms"]["gaussian_coeff"] = coefficient
        return parse_config(values)

    def photograph(self, place: int) -> bytes:
        """A JPEG of the photograph at most SHOWN_SIDE pixels long. Raises UserError if it cannot be read."""
        decode = self.config.decode.model_copy(
            update={"short_side": SHOWN_SIDE, "long_side": SHOWN_SIDE, "keep_ratio": True, "align": 1}
        )
        try:
            with self._lock:  # one decoded photograph at a time, too
                image = decode_image(read_image_bytes(self.refs[place], decode.max_bytes), self.refs[place], decode)
        except BadImage as error:
            raise UserError(f"{self.refs[place].file_name} cannot be shown ({error}): choose another.") from None
        done, data = cv2.imencode(".jpg", cv2.cvtColor(image.pixels, cv2.COLOR_RGB2BGR))
        assert done
        return data.tobytes()

    def analyse(self, place: int, config: Config) -> Analysis:
        """All steps on a photograph, or what they gave before. Raises UserError if it cannot be used."""
        key = (place, config.model_dump_json())
        with self._lock:
            return _remember(self._analyses, key, lambda: self._analyse(place, config), _size_of_analysis)

    def describe(self, analysis: Analysis) -> dict[str, Any]:
        """The survivors and the grid, for the page; lengths in pixels of the picture shown."""
        height, width = _shown(analysis.image)
        survivors = []
        for rank, seed in enumerate(analysis.survivor_seeds):
            outline = _outline(self._upsample(analysis, seed), analysis.config.threshold.tau)
            survivors.append(_seed_facts(analysis, seed) | {"d": outline, "color": _color(rank)})
        layout = analysis.layout
        return {
            "width": width,
            "height": height,
            "grid": [layout.height, layout.width],
            "scales": [
                {"scale": scale, "rows": h, "columns": w}
                for scale, (h, w) in zip(layout.scales, layout.shapes, strict=True)
            ],
            "seeds": layout.num_seeds,
            "candidates": int((analysis.maskness > 0).sum()),
            "survivors": survivors,
            "departs": describe_overrides(self.config, analysis.config),
            "seconds": round(analysis.seconds, 3),
        }

    def ask(self, analysis: Analysis, x: float, y: float, scale: int) -> dict[str, Any]:
        """What the seed at a place sees. x, y: fractions of the image's width and height; `scale` counts from 0."""
        layout = analysis.layout
        scale = min(max(scale, 0), len(layout.shapes) - 1)
        rows, columns = layout.shapes[scale]
        row = min(max(int(y * rows), 0), rows - 1)
        column = min(max(int(x * columns), 0), columns - 1)
        seed = sum(h * w for h, w in layout.shapes[:scale]) + row * columns + column
        soft_hw = self._upsample(analysis, seed)
        tau = analysis.config.threshold.tau
        return _seed_facts(analysis, seed) | {
            "d": _outline(soft_hw, tau),
            "map": _picture(soft_hw),
            "cells": int((analysis.maps[seed] >= tau).sum()),
            "fate": self._fate(analysis, seed),
        }

    def _fate(self, analysis: Analysis, seed: int) -> dict[str, Any]:
        """What became of a seed's mask, and which survivor overlaps it most (`rank`, `iou`)."""
        if seed in analysis.survivor_seeds:
            return {"kind": "survivor", "rank": analysis.survivor_seeds.index(seed)}
        maskness, filters = float(analysis.maskness[seed]), analysis.config.filters
        if maskness == 0:
            return {"kind": "no mask"}
        least = 0.0 if filters.keep_best else filters.min_score or 0.0
        low = maskness < max(least, filters.min_maskness or 0.0)
        decayed = float(analysis.score[seed]) < maskness - 1e-6
        fate: dict[str, Any] = {"kind": "low" if low else "swallowed" if decayed else "filtered"}
        if analysis.survivor_seeds:
            mask_K = analysis.maps[seed] >= analysis.config.threshold.tau
            inter_M = (analysis.survivor_masks & mask_K).sum(1)
            iou_M = inter_M / (analysis.survivor_masks | mask_K).sum(1).clamp_min(1)
            fate |= {"rank": int(iou_M.argmax()), "iou": round(float(iou_M.max()), 3)}
        return fate

    def _analyse(self, place: int, config: Config) -> Analysis:
        start = time.perf_counter()
        image, features_1DHW = self._see(place, config)
        bf16 = self._extract.bf16_valued
        found = propose(features_1DHW, config, bf16_valued=bf16)
        layout = found.layout
        cells_1KD = flatten_cells(features_1DHW)
        sim_1NK = similarity_maps(cells_1KD, layout, config.saliency.similarity, bf16_valued=bf16)
        maps_1NK = normalize_maps(sim_1NK, config.normalize.scope, config.normalize.eps)
        candidates = threshold_maps(maps_1NK, config.threshold.tau, config.threshold.min_cells)
        order_1N, score_1N = suppress(candidates.masks, candidates.maskness, config)
        score_N = torch.zeros(layout.num_seeds, device=score_1N.device).scatter(0, order_1N[0], score_1N[0])
        host = Arriving(pinned(found), arrival(self._device))
        host.wait()
        if not bool(host.found.finite[0]):
            name = self.refs[place].file_name
            raise UserError(f"{name} cannot be used (the backbone gave NaN or infinite features): choose another.")
        record = labelled(self.refs[place], image, encode_proposals(host.found, 0, image, config))
        seeds = _seed_numbers(record, layout)
        return Analysis(
            image=image,
            layout=layout,
            maps=maps_1NK[0].cpu(),
            maskness=candidates.maskness[0].cpu(),
            score=score_N.cpu(),
            survivors=record,
            survivor_seeds=seeds,
            survivor_masks=(maps_1NK[0].cpu()[seeds] >= config.threshold.tau),
            config=config,
            seconds=time.perf_counter() - start,
        )

    @torch.inference_mode()
    def _see(self, place: int, config: Config) -> tuple[DecodedImage, Tensor]:
        key = (place, config.decode.model_dump_json())

        def compute() -> tuple[DecodedImage, Tensor]:
            read = load_image(self.refs[place], config.decode, self._admit)
            if isinstance(read, ImageRecord):
                raise UserError(f"{read.file_name} cannot be used ({read.reason}: {read.error}): choose another.")
            self._refuse_too_large(read.image, config)
            pixels = stack_pixels([read.image.pixels], pin=False).to(self._device)
            return read.image, self._extract(pixels)

        return _remember(self._features, key, compute, lambda kept: kept[0].pixels.nbytes + kept[1].nbytes)

    def _refuse_too_large(self, image: DecodedImage, config: Config) -> None:
        own = resized_shape(image.height, image.width, self.config.decode)
        most = max(MAX_MAP_VALUES, _map_values(own, self._extract.stride, self.config))
        if (values := _map_values(image.pixels.shape[:2], self._extract.stride, config)) > most:
            raise UserError(
                f"The maps of this photograph would have {values / 1e6:,.0f} million values, and {most / 1e6:,.0f} "
                "million are held: choose a smaller short side."
            )

    @staticmethod
    def _upsample(analysis: Analysis, seed: int) -> npt.NDArray[np.float32]:
        """A seed's map at the size of the picture shown: [h, w]."""
        map_11HW = analysis.maps[seed].view(1, 1, analysis.layout.height, analysis.layout.width)
        found: npt.NDArray[np.float32] = F.interpolate(map_11HW, _shown(analysis.image), mode="bilinear")[0, 0].numpy()
        return found


def describe_overrides(base: Config, config: Config) -> list[str]:
    """The `--set` arguments, unquoted, that lead from one configuration to another."""
    before, after = base.model_dump(mode="json"), config.model_dump(mode="json")
    return [
        f"{section}.{field}={value if isinstance(value, str) else json.dumps(value)}"
        for section, fields in after.items()
        for field, value in fields.items()
        if before[section][field] != value
    ]


def _seed_facts(analysis: Analysis, seed: int) -> dict[str, Any]:
    """Where a seed is, in pixels of the picture shown, and its scores."""
    height, width = _shown(analysis.image)
    scale, first = 0, 0
    while seed - first >= (size := math.prod(analysis.layout.shapes[scale])):
        scale, first = scale + 1, first + size
    rows, columns = analysis.layout.shapes[scale]
    row, column = divmod(seed - first, columns)
    return {
        "seed": seed,
        "scale": scale,
        "cell": [row, column],
        "box": [column / columns * width, row / rows * height, width / columns, height / rows],
        "maskness": round(float(analysis.maskness[seed]), 4),
        "score": round(float(analysis.score[seed]), 4),
    }


def _seed_numbers(record: ImageRecord, layout: SeedLayout) -> list[int]:
    """Index among all seeds of each stored mask's seed."""
    if record.masks is None:
        return []
    starts = dict(zip(layout.scale_index, np.cumsum([0, *(h * w for h, w in layout.shapes)]), strict=False))
    columns = {i: w for i, (_, w) in zip(layout.scale_index, layout.shapes, strict=True)}
    seeds = (np.asarray(record.masks.extra[name]).tolist() for name in ("seed_scale", "seed_y", "seed_x"))
    return [int(starts[scale] + y * columns[scale] + x) for scale, y, x in zip(*seeds, strict=True)]


def _remember(
    held: "OrderedDict[Hashable, Kept]", key: Hashable, compute: Callable[[], Kept], size: Callable[[Kept], int]
) -> Kept:
    if key not in held:
        held[key] = compute()
        while len(held) > KEPT or (len(held) > 1 and sum(map(size, held.values())) > HELD_BYTES):
            held.popitem(last=False)
    held.move_to_end(key)
    return held[key]


def _size_of_analysis(kept: Analysis) -> int:
    return kept.maps.nbytes + kept.survivor_masks.nbytes


def _map_values(shape: tuple[int, ...], stride: int, config: Config) -> int:
    """N * K of an image resized to (height, width) pixels."""
    height, width = (-(-side // stride) for side in shape)
    return seed_layout(height, width, config.saliency).num_seeds * height * width


def _shown(image: DecodedImage) -> tuple[int, int]:
    scale = min(1.0, SHOWN_SIDE / max(image.height, image.width))
    return max(1, math.floor(image.height * scale + 0.5)), max(1, math.floor(image.width * scale + 0.5))


def _outline(soft_hw: npt.NDArray[np.float32], tau: float) -> str:
    mask = (soft_hw >= tau).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    shapes = [cv2.approxPolyDP(contour, 0.7, True)[:, 0].tolist() for contour in contours]
    return "".join("M" + "L".join(f"{x} {y}" for x, y in points) + "Z" for points in shapes if len(points) > 2)


def _picture(soft_hw: npt.NDArray[np.float32]) -> str:
    """A soft map in colours, at a quarter of the size: it is smooth."""
    small = cv2.resize(soft_hw, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    level = np.rint(small.clip(0, 1) * 255).astype(np.uint8)
    picture = np.dstack([cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), np.full_like(level, 215)])
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _color(rank: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*palette_color(rank))
