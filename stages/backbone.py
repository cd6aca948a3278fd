"""The frozen backbone: weights by name or file, into a module that is ready to extract features."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models.backbones.base import Backbone, Take
from ..models.backbones.registry import ANY, BACKBONES, build_backbone
from ..models.backbones.state_dict import backbone_state, fill, infer_arch, unwrap
from ..models.backbones.swin import infer_swin, swin_state
from ..models.backbones.vit_state import infer_vit, vit_state
from ..schemas.errors import UserError
from ..store.stated import Stated, Triple, read_stated
from ..store.weights import read_tensors, resolve_weights


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBackbone:
    """A backbone in eval mode, without gradients, and what it was made from.

    `weights` is the name or file as given; `weights_sha256` is the digest of the file, of the parameters
    (`random`), or of the version of features without weights. `own_colours`: its file states another mean or std.
    `max_rim` is the filter registered for it, if there is one.
    """

    module: Backbone
    arch: str
    weights: str
    weights_sha256: str
    stride_in_1x1: bool = False
    own_colours: bool = False
    max_rim: float | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What it decides where a configuration says `auto`."""
        found = {"arch": self.arch, "precision": self.module.precision, "max_rim": self.max_rim}
        return {name: value for name, value in found.items() if value is not None}


def load_backbone(
    weights: str,
    *,
    arch: str = "auto",
    stride_in_1x1: bool = False,
    seed: int = 0,
    layer: int = -1,
    take: Take = "tokens",
    cache: Path | None = None,
) -> LoadedBackbone:
    """Build the backbone that the weights belong to and fill it, on the CPU; torch's generator is not advanced.

    `arch` is read off the weights when "auto" (for `random`: resnet50). `seed` matters for `random` alone. Weights
    `timm:NAME` and `transformers:NAME` are those that these packages fetch; `layer` and `take` choose the features of
    a ViT (see `vit.TimmFeatures`). `cache` is the folder of downloaded weights. What a safetensors file says of itself
    (`store/stated.py`) holds. Raises UserError for weights that cannot be had, cannot be read, or do not fit.
    """
    if weights.startswith(ANY):
        if arch not in ("auto", weights):
            raise UserError(f"the weights {weights} are not of {arch}: set features.arch to auto")
        module = build_backbone(weights, stride_in_1x1=stride_in_1x1, layer=layer, take=take, pretrained=True)
        return LoadedBackbone(module.eval().requires_grad_(False), weights, weights, _parameters_sha256(module))
    resolved = resolve_weights(weights, cache)
    entry = resolved.entry
    state: dict[str, torch.Tensor] | None = None
    stated = Stated()
    if resolved.path is not None:
        found, state = _read(resolved.path, arch)
        stated = read_stated(resolved.path)
    else:
        assert entry is not None
        learned = arch.startswith(ANY) or (arch in BACKBONES and BACKBONES[arch].learned)
        found = arch if entry.name == "random" and learned else entry.arch
    if arch not in ("auto", found):
        raise UserError(f"the weights {weights} are of {found}, not {arch}: set features.arch to auto or to {found}")

    stride_in_1x1 = stride_in_1x1 or bool(stated.stride_in_1x1) or (entry is not None and entry.stride_in_1x1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_backbone(found, stride_in_1x1=stride_in_1x1, layer=layer, take=take)
    usual = (*module.mean, *module.std)
    module.mean, module.std = _scaled(stated.mean) or module.mean, _scaled(stated.std) or module.std
    own_colours = not np.allclose(usual, (*module.mean, *module.std))
    if state is not None:
        fill(module.get_submodule("model") if found.startswith(ANY) else module, state)
        digest = resolved.sha256
    elif module.version is not None:
        digest = hashlib.sha256(module.version.encode()).hexdigest()
    else:
        digest = _parameters_sha256(module)
    return LoadedBackbone(
        module.eval().requires_grad_(False),
        found,
        weights,
        digest,
        stride_in_1x1,
        own_colours,
        None if entry is None else entry.max_rim,
    )


def _scaled(values: Triple | None) -> Triple | None:
    """From 0..1 to 0..255."""
    return None if values is None else (255 * values[0], 255 * values[1], 255 * values[2])


def _read(path: Path, arch: str) -> tuple[str, dict[str, torch.Tensor]]:
    """The architecture that a file is of, and its tensors under the names of that."""
    raw = read_tensors(path)
    vit = vit_state(raw)
    if arch.startswith(ANY):
        return arch, unwrap(raw) if vit is None else vit
    if vit is not None:
        return infer_vit(vit), vit
    swin = swin_state(raw)
    if swin is not None:
        return infer_swin(swin), swin
    state = backbone_state(raw)
    return infer_arch(state), state


def _parameters_sha256(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
