"""The engine's models in host memory, as planning and workers ask for them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....schemas.errors import UserError
from ....schemas.labels.annotate import AnnotateConfig
from ...referring.answer import NamedSpeaker
from ..contract import Admit
from .caption import HubCaptioner
from .engine import AnnotateProducer, Chain, admit_all
from .filter import HubMatcher
from .ground import ClipTagger, GroundingDetector, read_vocabulary
from .refine import HubSegmenter, UniLSegReferrer
from .roles import Floats


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAnnotator:
    """See `contract.Loaded`."""

    chain: Chain

    @property
    def weights(self) -> str:
        """Names by role."""
        return ", ".join(f"{role} {model.name}" for role, model in self.chain.roles().items())

    @property
    def weights_sha256(self) -> str:
        """Of the models, the given boxes and the vocabulary."""
        digest = hashlib.sha256(self.chain.vocabulary_sha256.encode())
        for role, model in self.chain.roles().items():
            digest.update(f"{role} {model.sha256}\n".encode())
        for name, boxes in sorted(self.chain.boxes.items()):
            digest.update(name.encode("utf-8", "surrogateescape"))
            digest.update(boxes.tobytes())
        return digest.hexdigest()

    @property
    def facts(self) -> Mapping[str, Any]:
        """The models decide nothing."""
        return {}

    def admission(self, config: AnnotateConfig) -> Admit:
        """See `contract.Loaded`."""
        del config
        return admit_all

    def build(self, config: AnnotateConfig, device: torch.device) -> AnnotateProducer:
        """See `contract.Loaded`."""
        return AnnotateProducer(config, self.chain, admit_all, device)


def load_annotator(config: AnnotateConfig, trained: NamedSpeaker | None) -> LoadedAnnotator:
    """The models of a branch. Raises UserError where one is missing, cannot be loaded, or does not fit."""
    roles, branch = config.roles, config.annotate.branch
    matcher = HubMatcher(roles.matcher) if roles.matcher else None
    if branch == "unlabelled":
        if trained is None:
            raise UserError("Masks of captions come from a run of UniLSeg: name its folder with --referrer.")
        captioner = HubCaptioner(roles.captioner, config.annotate.caption_tokens)
        return LoadedAnnotator(Chain(captioner=captioner, referrer=UniLSegReferrer(trained), matcher=matcher))
    if branch == "boxes":
        boxes = read_boxes(config.boxes.gt)
        captioner = HubCaptioner(roles.captioner, config.annotate.caption_tokens)
        segmenter = HubSegmenter(roles.mask_segmenter)
        return LoadedAnnotator(Chain(mask_segmenter=segmenter, captioner=captioner, matcher=matcher, boxes=boxes))
    words, tags = read_vocabulary(config.tags.vocabulary), config.tags
    return LoadedAnnotator(
        Chain(
            tagger=ClipTagger(roles.tagger, words, tags.prompt, most=tags.most, min_score=tags.min_score),
            box_detector=GroundingDetector(roles.box_detector, min_score=tags.box, overlap=tags.nms),
            mask_segmenter=HubSegmenter(roles.mask_segmenter),
            matcher=matcher,
            vocabulary_sha256=hashlib.sha256("\n".join(words).encode()).hexdigest(),
        )
    )


def read_boxes(file: str) -> dict[str, Floats]:
    """XYWH boxes [n, 4] of a COCO file, by the photographs' names; annotations without a box are passed over."""
    if not file:
        raise UserError("The branch boxes needs boxes: give COCO annotations with --gt.")
    try:
        content = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        found: dict[str, list[list[float]]] = {}
        for one in content["annotations"]:
            box = one.get("bbox")
            if one["image_id"] in names and isinstance(box, list) and len(box) == 4 and not one.get("iscrowd"):
                found.setdefault(names[one["image_id"]], []).append([float(value) for value in box])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} holds no boxes ({error!r}): give COCO annotations with `bbox`.") from None
    if not found:
        raise UserError(f"{file} holds no box: give COCO annotations with `bbox`.")
    return {name: np.array(boxes, np.float32) for name, boxes in found.items()}
