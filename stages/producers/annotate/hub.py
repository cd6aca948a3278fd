"""Loading models by name, from a folder or the Hugging Face hub, for the roles."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ....schemas.errors import UserError

EXACT = ("input_boxes", "input_points")  # places on a photograph, of which half precision would lose pixels


def load_model(kind: str, name: str, role: str) -> tuple[Any, Any, str]:
    """Model in eval mode on the CPU, processor, and digest. `kind` is an Auto class of transformers.

    Raises UserError with the way out if the package is missing, the model is not here and cannot be fetched, or does
    not fit the role.
    """
    try:
        import transformers
    except ImportError:
        raise UserError("The annotation engine needs transformers: pip install saliency-prompt[annotate].") from None
    if not name:
        raise UserError(f"This branch needs a {role}: name one with --set roles.{role}=NAME.")
    classes = {
        "caption": transformers.AutoModelForImageTextToText,
        "detect": transformers.AutoModelForZeroShotObjectDetection,
        "segment": transformers.AutoModelForMaskGeneration,
        "match": transformers.AutoModel,
    }
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the data set has a bar of its own
    place, _, revision = name.partition("@")
    where: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        model = classes[kind].from_pretrained(place, dtype=torch.float32, **where)
        # the files of SAM 2 and SAM 3 name their processors of videos
        of_images: dict[type, Any] = {
            transformers.Sam2Model: transformers.Sam2Processor,
            transformers.Sam3TrackerModel: transformers.Sam3TrackerProcessor,
        }
        processor = of_images.get(type(model), transformers.AutoProcessor).from_pretrained(place, **where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        words = " ".join(str(error).split())[:160]
        raise UserError(
            f"The {role} {name} cannot be loaded ({words}): download it where there is a network and name its folder "
            f"with --set roles.{role}=FOLDER."
        ) from None
    model = model.eval().requires_grad_(False)
    return model, processor, digest_of(model)


def full_name(name: str) -> str:
    """The name of a loaded model with the revision it has; a folder has none."""
    from huggingface_hub import try_to_load_from_cache

    place, _, revision = name.partition("@")
    if Path(place).is_dir():
        return name
    file = try_to_load_from_cache(place, "config.json", revision=revision or None)
    return f"{place}@{Path(file).parent.name}" if isinstance(file, str) else name


def digest_of(model: nn.Module) -> str:
    """Of a model's settings and tensors."""
    config: Any = model.config
    settings = {name: value for name, value in config.to_dict().items() if name not in ("_name_or_path", "dtype")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def on_device(inputs: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """A processor's tensors on the device, floating ones in the model's arithmetic but for places."""
    moved: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            moved[name] = value.to(device, dtype if value.is_floating_point() and name not in EXACT else None)
        else:
            moved[name] = value
    return moved
