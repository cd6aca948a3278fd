"""The frozen backbone: weights by name or file, into a module that is ready to extract features."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from ..models.backbones.base import Backbone
from ..models.backbones.registry import BACKBONES, build_backbone
from ..models.backbones.state_dict import backbone_state, infer_arch, load_backbone_state
from ..schemas.errors import UserError
from ..store.weights import read_tensors, resolve_weights


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBackbone:
    """A backbone in eval mode, without gradients, and what it was made from.

    `weights` is the name or file as given; `weights_sha256` is the digest of the file, of the parameters
    (`random`), or of the version of features without weights.
    """

    module: Backbone
    arch: str
    weights: str
    weights_sha256: str
    stride_in_1x1: bool = False


def load_backbone(
    weights: str, *, arch: str = "auto", stride_in_1x1: bool = False, seed: int = 0, cache: Path | None = None
) -> LoadedBackbone:
    """Build the backbone that the weights belong to and fill it, on the CPU; torch's generator is not advanced.

    `arch` is read off the weights when "auto" (for `random`: resnet50). `seed` matters for `random` alone.
    `cache` is the folder of downloaded weights. Raises UserError for weights that cannot be had, cannot be
    read, or do not fit.
    """
    resolved = resolve_weights(weights, cache)
    entry = resolved.entry
    raw: dict[str, object] | None = None
    if resolved.path is not None:
        raw = read_tensors(resolved.path)
        found = infer_arch(backbone_state(raw))
    else:
        assert entry is not None
        learned = arch in BACKBONES and BACKBONES[arch].learned
        found = arch if entry.name == "random" and learned else entry.arch
    if arch not in ("auto", found):
        raise UserError(f"the weights {weights} are of {found}, not {arch}: set features.arch to auto or to {found}")

    stride_in_1x1 = stride_in_1x1 or (entry is not None and entry.stride_in_1x1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_backbone(found, stride_in_1x1=stride_in_1x1)
    if raw is not None:
        load_backbone_state(module, raw)
        digest = resolved.sha256
    elif module.version is not None:
        digest = hashlib.sha256(module.version.encode()).hexdigest()
    else:
        digest = _parameters_sha256(module)
    return LoadedBackbone(module.eval().requires_grad_(False), found, weights, digest, stride_in_1x1)


def _parameters_sha256(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
