"""The folder of a training run: its card, what it logged, and the names of its checkpoints."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..schemas.errors import UserError
from ..schemas.run import RunCard, upgrade_card

CARD, LAST, PREVIOUS = "run.json", "last.ckpt", "previous.ckpt"
CURVES, SKIPPED, EVALUATIONS = "curves.jsonl", "skipped.jsonl", "evaluations.jsonl"


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that training passed over: its place in the list, its name, and why."""

    index: int
    file_name: str
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run in `folder`, which need not exist yet. Lines that a killed process left unfinished are passed over."""

    folder: Path

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / LAST

    def checkpoints(self) -> list[Path]:
        """Newest first; a crash between two renames leaves the one before."""
        return [path for name in (LAST, PREVIOUS) if (path := self.folder / name).is_file()]

    def check_new(self) -> None:
        """Raise UserError if the folder holds a run."""
        if self.checkpoints():
            raise UserError(f"{self.folder} holds a run already: give another --out.")

    def read_card(self) -> RunCard:
        """The card, also of older formats. Raises UserError if this is no run."""
        try:
            return RunCard.model_validate(upgrade_card(json.loads((self.folder / CARD).read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
            raise UserError(f"{self.folder} holds no training run: give the folder of one.") from None

    def find_card(self) -> RunCard | None:
        """The card, if there is one."""
        return self.read_card() if (self.folder / CARD).exists() else None

    def write_card(self, card: RunCard) -> None:
        """Replace the card."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{CARD}.{os.getpid()}"
        part.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        part.replace(self.folder / CARD)

    def write_json(self, name: str, content: Any) -> None:
        """A document beside the card."""
        (self.folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def append_curves(self, values: dict[str, float]) -> None:
        """One entry; after a crash steps may occur twice, and the later line counts."""
        self._append(CURVES, [values])

    def append_skipped(self, rank: int, skipped: Sequence[Skipped]) -> None:
        """Images that a process passed over."""
        lines = [
            {"index": one.index, "file_name": one.file_name, "reason": one.reason, "error": one.error}
            for one in skipped
        ]
        self._append(SKIPPED if rank == 0 else f"{SKIPPED}.{rank}", lines)

    def read_skipped(self) -> dict[int, Skipped]:
        """What all processes passed over so far, by place in the list."""
        found = {}
        for path in sorted(self.folder.glob(f"{SKIPPED}*")):
            for line in read_lines(path):
                found[line["index"]] = Skipped(line["index"], line["file_name"], line["reason"], line["error"])
        return found

    def append_evaluation(self, step: int, values: dict[str, float]) -> None:
        """The results of a step, which pays what was owed for it."""
        self._append(EVALUATIONS, [{"step": step, **values}])

    def evaluations(self) -> dict[int, dict[str, float]]:
        """Results by step."""
        lines = read_lines(self.folder / EVALUATIONS)
        return {int(line["step"]): {name: v for name, v in line.items() if name != "step"} for line in lines}

    def _append(self, name: str, lines: Sequence[dict[str, Any]]) -> None:
        path = self.folder / name
        torn = path.exists() and path.stat().st_size and not _ends_a_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + "".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; none if there is no file, and without lines that are torn."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
