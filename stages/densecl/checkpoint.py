"""What a run keeps on disk to go on exactly where it stopped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

from ...schemas.densecl import DenseCLConfig
from ...schemas.errors import UserError
from .photos import Skipped

LAST, PREVIOUS, CARD = "last.ckpt", "previous.ckpt", "run.json"
SKIPPED, CURVES = "skipped.jsonl", "curves.jsonl"
# Fields that change neither the result nor its meaning.
_FREE = {"photos": ("cache_gb", "workers"), "train": ("log_every", "checkpoint_every")}


def save_checkpoint(trainer: lightning.Trainer, run: Path) -> None:
    """Write `last.ckpt`, the one before becoming `previous.ckpt`; called by all processes together."""
    fresh = run / "fresh.ckpt"
    trainer.save_checkpoint(fresh)
    if trainer.is_global_zero:
        if (run / LAST).exists():
            (run / LAST).replace(run / PREVIOUS)
        fresh.replace(run / LAST)


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint to go on from; a crash between two renames leaves the one before."""
    return next((path for name in (LAST, PREVIOUS) if (path := run / name).is_file()), None)


def check_new(out: Path, *, resume: bool) -> None:
    """Raise UserError if `out` holds a run and `resume` was not said."""
    if not resume and newest_checkpoint(out) is not None:
        raise UserError(f"{out} holds a run already: add --resume to go on with it, or give another --out.")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The tensors and numbers of a checkpoint, on the CPU. Raises UserError for a file that is none."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"The checkpoint {path} cannot be read ({error}): restore it, or start a new run.") from None
    return content


def write_card(run: Path, card: dict[str, Any]) -> None:
    """Write `run.json`."""
    temporary = run / f"{CARD}.tmp"
    temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    temporary.replace(run / CARD)


def read_card(run: Path) -> dict[str, Any]:
    """Read `run.json`; UserError if this is no run."""
    try:
        card: dict[str, Any] = json.loads((run / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{run} holds no DenseCL run: give the folder that `densecl --out` wrote.") from None
    return card


def check_same(card: dict[str, Any], config: DenseCLConfig, photos_sha256: str) -> None:
    """Raise UserError if a run cannot be resumed with this configuration or these photographs."""
    if card["photos_sha256"] != photos_sha256:
        raise UserError("The photographs are not those this run began with: give the same ones, or another --out.")
    before, now = card["config"], config.model_dump(mode="json")
    changed = [
        f"{section}.{field} was {before[section].get(field)!r}, now {value!r}"
        for section, fields in now.items()
        for field, value in fields.items()
        if field not in _FREE.get(section, ()) and before[section].get(field) != value
    ]
    if changed:
        raise UserError(
            f"The run cannot be resumed with another configuration ({'; '.join(changed)}): undo the change."
        )


def append_curves(run: Path, values: dict[str, float]) -> None:
    """Add one entry to `curves.jsonl`; after a crash steps may occur twice, and the later line counts."""
    with (run / CURVES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def append_skipped(run: Path, rank: int, skipped: Sequence[Skipped], names: Sequence[str]) -> None:
    """Note photographs that were passed over, one JSON line each."""
    suffix = "" if rank == 0 else f".{rank}"
    with Path(run, SKIPPED + suffix).open("a", encoding="utf-8") as file:
        for one in skipped:
            line = {"index": one.index, "file_name": names[one.index], "reason": one.reason, "error": one.error}
            file.write(json.dumps(line) + "\n")


def read_skipped(run: Path) -> dict[int, dict[str, Any]]:
    """What was passed over so far, by all processes, by place in the list."""
    lines = [line for path in sorted(run.glob(f"{SKIPPED}*")) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    return {row["index"]: row for row in rows}
