"""Where an export goes: a file or a folder that appears when it is complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ...schemas.errors import UserError
from ...store.objects import explain


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written and where; `quarantined` images are left out, and `absent` photographs where they are needed."""

    images: int
    annotations: int
    quarantined: int
    paths: tuple[Path, ...] = ()
    absent: int = 0


def refuse_url(path: str) -> None:
    """Raise UserError for a URL."""
    if "://" in path:
        raise UserError(f"{path} is a URL: name a local place, and copy it there afterwards.")


@contextmanager
def whole_file(target: Path) -> Iterator[TextIO]:
    """A text file in UTF-8 that takes the place of the old one when it is complete. Raises UserError."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as out:
                yield out
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise explain(error, str(target)) from error


@contextmanager
def whole_folder(path: str) -> Iterator[Path]:
    """A new folder, which has its name when it is complete. Raises UserError, also if there is something already."""
    refuse_url(path)
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    try:
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        if target.exists():
            raise UserError(f"{target} exists already: name a new folder, or remove it first.")
        shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
        partial.mkdir(parents=True)
        try:
            yield partial
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise explain(error, str(target)) from error


def part_path(path: Path, split: str, parts: int) -> Path:
    """Of several parts each has a file of its own: `labels.json` becomes `labels-train.json`."""
    return path if parts == 1 else path.with_name(f"{path.stem}-{split}{path.suffix}")
