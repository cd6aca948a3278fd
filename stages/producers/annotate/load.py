"""The engine's models in host memory, as planning and workers ask for them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....schemas.errors import UserError
from ....schemas.labels.annotate import AnnotateConfig
from ...referring.answer import NamedSpeaker
from ..contract import Admit
from .caption import HubCaptioner
from .engine import AnnotateProducer, admit_all
from .filter import HubMatcher
from .found import Chain, Given
from .ground import ClipTagger, GroundingDetector, read_vocabulary
from .onnx import OnnxSegmenter
from .refine import HubSegmenter, UniLSegReferrer


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAnnotator:
    """See `contract.Loaded`."""

    chain: Chain
    named_by_captioner: bool = True  # or by categories

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
        for name, given in sorted(self.chain.boxes.items()):
            digest.update(name.encode("utf-8", "surrogateescape"))
            digest.update(given.boxes.tobytes())
            if not self.named_by_captioner:
                digest.update("\n".join(given.names).encode())
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
    """The models of the steps done here. Raises UserError where one is missing, cannot be loaded, or does not fit."""
    roles, branch, steps, tags = config.roles, config.annotate.branch, config.annotate.doing, config.tags
    chain = Chain()
    if "refer" in steps:
        if trained is None:
            raise UserError("Masks of captions come from a run of UniLSeg: name its folder with --referrer.")
        chain = replace(chain, referrer=UniLSegReferrer(trained))
    if "segment" in steps and branch == "boxes":
        boxes = read_boxes(config.boxes.gt)
        if not roles.captioner and not any(name for given in boxes.values() for name in given.names):
            raise UserError(f"{config.boxes.gt} names no categories: name a captioner with --set roles.captioner=NAME.")
        chain = replace(chain, boxes=boxes)
    if "ground" in steps:
        words = read_vocabulary(tags.vocabulary)
        chain = replace(
            chain,
            tagger=ClipTagger(roles.tagger, words, tags.prompt, most=tags.most, min_score=tags.min_score),
            box_detector=GroundingDetector(roles.box_detector, min_score=tags.box, overlap=tags.nms),
            vocabulary_sha256=hashlib.sha256("\n".join(words).encode()).hexdigest(),
        )
    if "segment" in steps:
        chain = replace(chain, mask_segmenter=open_segmenter(roles.mask_segmenter))
    if "caption" in steps and (roles.captioner or branch != "boxes"):
        chain = replace(chain, captioner=HubCaptioner(roles.captioner, config.annotate.caption_tokens))
    if "match" in steps and roles.matcher:
        chain = replace(chain, matcher=HubMatcher(roles.matcher))
    return LoadedAnnotator(chain, bool(roles.captioner))


def open_segmenter(name: str) -> HubSegmenter | OnnxSegmenter:
    """A model of transformers, or of an ONNX file."""
    return OnnxSegmenter(name) if name.endswith(".onnx") else HubSegmenter(name)


def read_boxes(file: str) -> dict[str, Given]:
    """Boxes of a COCO file, by the photographs' names; annotations without a box are passed over."""
    if not file:
        raise UserError("The branch boxes needs boxes: give COCO annotations with --gt.")
    try:
        content = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
        photographs = {image["id"]: str(image["file_name"]) for image in content["images"]}
        categories = {one["id"]: str(one["name"]) for one in content.get("categories", [])}
        found: dict[str, list[tuple[list[float], str]]] = {}
        for one in content["annotations"]:
            box = one.get("bbox")
            if one["image_id"] in photographs and isinstance(box, list) and len(box) == 4 and not one.get("iscrowd"):
                named = [float(value) for value in box], categories.get(one.get("category_id"), "")
                found.setdefault(photographs[one["image_id"]], []).append(named)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} holds no boxes ({error!r}): give COCO annotations with `bbox`.") from None
    if not found:
        raise UserError(f"{file} holds no box: give COCO annotations with `bbox`.")
    return {
        photograph: Given(np.array([box for box, _ in some], np.float32), tuple(name for _, name in some))
        for photograph, some in found.items()
    }
