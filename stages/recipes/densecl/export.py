"""From a run to a backbone file that everything else loads, with a model card beside it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ....schemas.errors import UserError
from ....schemas.run import RunCard
from ....store.run import Run
from ....store.weights import sha256_of
from ...training.checkpoints import read_newest

_PREFIX = "model.query.backbone."


def export_backbone(run: Path, out: Path) -> dict[str, Any]:
    """Write the query encoder's backbone as fp16 safetensors under torchvision's names, and `out`.json and `out`.md.

    Gives the card. Raises UserError for a folder without a checkpoint, a name without .safetensors, or weights that
    fp16 cannot hold.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out} must end in .safetensors: that is the format that is written.")
    tensors, described, steps = read_backbone(run)
    state = {name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in tensors.items()}
    if not all(bool(t.isfinite().all()) for t in state.values() if t.is_floating_point()):
        raise UserError("The backbone's weights don't fit into fp16: train longer, or with a lower --set optim.lr.")
    config = described.config
    epoch_steps = described.images // config["optim"]["batch_size"]
    out.parent.mkdir(parents=True, exist_ok=True)
    # one entry: safetensors writes several in an order of its own every time, and the file would have many hashes
    out.write_bytes(save(state, {"backbone": f"{config['model']['arch']}, {_method(config)}, {steps} steps"}))
    card = {
        "file": out.name,
        "sha256": sha256_of(out),
        "bytes": out.stat().st_size,
        "arch": config["model"]["arch"],
        "method": _method(config),
        "photos": Path(described.source).name,
        "photos_count": described.images,
        "photos_skipped": described.skipped,
        "steps": steps,
        "epochs": round(steps / epoch_steps, 2),
        "seconds": round(sum(s.seconds for s in described.sessions), 1),
        "hardware": sorted({s.device for s in described.sessions}),
        "last_values": described.last,
        "config": config,
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(_markdown(card), encoding="utf-8")
    return card


def read_backbone(run: Path) -> tuple[dict[str, torch.Tensor], RunCard, int]:
    """Of a run: the query backbone's tensors in fp32, its card, and the optimizer steps done."""
    card = Run(run).read_card()
    if card.recipe != "densecl":
        raise UserError(f"{run} is a run of {card.recipe}, not of densecl: give the folder `densecl --out` wrote.")
    found = read_newest(Run(run))
    if found is None:
        raise UserError(f"{run} holds no checkpoint yet: wait for the first one, or train on.")
    state = {k.removeprefix(_PREFIX): t for k, t in found.state.items() if k.startswith(_PREFIX)}
    return state, card, found.step // card.config["optim"]["accumulate"]


def _method(config: dict[str, Any]) -> str:
    return "DenseCL" if config["model"]["dense_weight"] > 0 else "MoCo-v2"


def _markdown(card: dict[str, Any]) -> str:
    config, optim, model = card["config"], card["config"]["optim"], card["config"]["model"]
    hours = card["seconds"] / 3600
    values = ", ".join(f"{name} {value:.4g}" for name, value in sorted(card["last_values"].items()) if "/" not in name)
    warmup = f" after {model['warmup_steps']:,} steps with 0" if model["warmup_steps"] else ""
    rows = {
        "architecture": f"{card['arch']}, torchvision's names, fp16, no classifier",
        "method": f"{card['method']}, lambda {model['dense_weight']}{warmup}, self-supervised: no labels were used",
        "photographs": f"{card['photos_count']:,} from `{card['photos']}`, {card['photos_skipped']} of them skipped",
        "recipe": f"{card['epochs']} of {optim['epochs']} epochs, {card['steps']:,} steps "
        f"of {optim['batch_size']} images, "
        f"views of {config['augment']['size']} px, SGD {optim['lr']} (per 256 images) with cosine decay, "
        f"queue {model['queue']}, key momentum {model['key_momentum']}, temperature {model['tau']}",
        "start": f"`{model['init']}`" if model["init"] else "random weights",
        "seed": config["train"]["seed"],
        "hardware": "; ".join(card["hardware"]),
        "duration": f"{hours:.2f} h" if hours >= 0.1 else f"{card['seconds']:.0f} s",
        "last values": values,
        "sha256": f"`{card['sha256']}`",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    use = f"saliency-prompt generate PHOTOS --weights {card['file']} --out DATASET"
    return (
        f"# {Path(card['file']).stem}\n\n| | |\n|---|---|\n{table}\n\nUse: `{use}`. The full configuration is in "
        f"`{Path(card['file']).with_suffix('.json')}`.\n"
    )
