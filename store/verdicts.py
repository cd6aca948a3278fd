"""The file of verdicts beside a data set: appended to, line by line, so that a crash costs the last line at most.

    {"verdicts_format": 1, "created_by": "0.1.0", "root_hash": "..."}
    {"image_id": 7, "mask": "0123456789abcdef", "verdict": "reject", "tags": ["shadow"], "time": 1790000000.0}

The last line of a mask or image counts. Masks are named by what they are, not by their rank: verdicts survive a
`dataset filter`, and lapse for a mask that was computed anew and became another.
"""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from ..schemas.errors import UserError
from ..schemas.verdicts import VERDICTS_FORMAT, Head, Line, Verdict
from ..version import __version__
from .dataset import Dataset
from .objects import explain

log = logging.getLogger(__name__)

SUFFIX = ".verdicts.jsonl"
IMAGE = ""  # in place of a mask's key: the image itself


@dataclass(frozen=True, slots=True)
class Opinion:
    """What was said last of a mask or image; `version` counts how often something was said."""

    verdict: Verdict | None = None
    tags: tuple[str, ...] = ()
    version: int = 0

    def __bool__(self) -> bool:
        return self.verdict is not None or bool(self.tags)


NOTHING = Opinion()


class OvertakenError(Exception):
    """Somebody else has said something since; `opinion` is what holds now."""

    def __init__(self, opinion: Opinion) -> None:
        super().__init__("changed elsewhere meanwhile")
        self.opinion = opinion


def mask_key(counts: bytes, height: int, width: int) -> str:
    """The name of a mask: 16 hex digits of the sha256 of its size and its compressed RLE."""
    return hashlib.sha256(b"%d %d " % (height, width) + counts).hexdigest()[:16]


def verdicts_path(dataset: Dataset, given: str | None = None) -> Path:
    """Where the verdicts on a data set are: `DATASET.verdicts.jsonl` beside it, unless a file is given.

    Raises UserError for a data set in a bucket, where lines cannot be appended, without a file given.
    """
    if given is not None:
        return Path(given).expanduser()
    root = dataset.store.local_root()
    if root is None:
        raise UserError(f"{dataset.url} is in a bucket, where verdicts cannot lie: name a local file by --verdicts.")
    return root.with_name(root.name + SUFFIX)


class VerdictFile:
    """Verdicts and tags by image id and mask. Processes may share the file; a process shares one of these by a lock.

    Lines that are damaged, such as a last one that a crash cut off, are skipped and counted once in a warning.
    """

    def __init__(self, path: Path, root_hash: str | None = None) -> None:
        """Raises UserError if the file is of another format or cannot be read; it need not exist."""
        self.path = path
        self._root_hash = root_hash
        self._inode, self._offset = -1, 0
        self._said: dict[int, dict[str, Opinion]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what others have appended."""
        try:
            with self.path.open("rb") as file:
                self._read(file)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise explain(error, str(self.path)) from error

    def of_image(self, image_id: int) -> Mapping[str, Opinion]:
        """What was said of an image (under `IMAGE`) and of its masks, by their keys."""
        return self._said.get(image_id, {})

    def items(self) -> Iterator[tuple[int, str, Opinion]]:
        """Every image id, mask key (or `IMAGE`) and opinion."""
        for image_id, masks in self._said.items():
            for mask, opinion in masks.items():
                yield image_id, mask, opinion

    def digest(self) -> str:
        """Sha256 over what holds, whatever the order in which it was said."""
        lines = sorted(
            f"{image_id} {mask} {opinion.verdict} {sorted(opinion.tags)}"
            for image_id, mask, opinion in self.items()
            if opinion
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def say(
        self, image_id: int, mask: str, verdict: Verdict | None, tags: Sequence[str], seen: int | None = None
    ) -> Opinion:
        """Append one line, on the disk when this returns; what holds from now on.

        `seen` is the version that the speaker knew of, None for whatever there is. Raises OvertakenError if there is a
        newer one, UserError for tags that are none or if the file cannot be written.
        """
        try:
            line = Line(image_id=image_id, mask=mask, verdict=verdict, tags=tuple(tags), time=round(time.time(), 3))
        except ValidationError:
            raise UserError("A tag has 1 to 64 letters, and a mask or image at most 32 of them: shorten it.") from None
        with self._locked() as file:
            self._read(file)
            before = self.of_image(image_id).get(mask, NOTHING)
            if seen is not None and seen != before.version:
                raise OvertakenError(before)
            self._append(file, line.model_dump_json(exclude_defaults=True).encode() + b"\n")
            self._read(file)
        return self._said[image_id][mask]

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        try:
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
                yield file
        except OSError as error:
            raise explain(error, str(self.path)) from error

    def _append(self, file: BinaryIO, line: bytes) -> None:
        end = file.seek(0, os.SEEK_END)
        if end and not self._offset:
            self._refuse_other(file)
            end = file.truncate(0)  # a first line that a crash cut off
        if end == 0:
            head = Head(verdicts_format=VERDICTS_FORMAT, created_by=__version__, root_hash=self._root_hash)
            line = head.model_dump_json().encode() + b"\n" + line
        else:
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line  # after one that a crash cut off
        written = file.write(line)
        if written != len(line):  # a full disk: the rest of the line would look like damage
            file.truncate(end)
            raise OSError(28, "No space left on device")
        os.fsync(file.fileno())

    def _read(self, file: BinaryIO) -> None:
        """Take in the whole lines from where the last reading ended."""
        about = os.fstat(file.fileno())
        if about.st_ino != self._inode or about.st_size < self._offset:  # another file lies there now
            self._forget(about.st_ino)
        file.seek(self._offset)
        data = file.read()
        whole = data.rpartition(b"\n")[0]
        if not whole:
            return
        lines = whole.split(b"\n")
        if self._offset == 0:
            self._check_head(lines.pop(0))
        self._offset += len(whole) + 1
        damaged = 0
        for text in lines:
            try:
                line = Line.model_validate_json(text)
            except ValidationError:
                damaged += 1
                continue
            masks = self._said.setdefault(line.image_id, {})
            version = masks.get(line.mask, NOTHING).version + 1
            masks[line.mask] = Opinion(line.verdict, line.tags, version)
        if damaged:
            log.warning("%s: %d lines are damaged and were skipped", self.path, damaged)

    def _refuse_other(self, file: BinaryIO) -> None:
        file.seek(0)
        beginning = b'{"verdicts_format"'
        if not beginning.startswith(file.read(len(beginning))):
            raise self._no_verdicts()

    def _no_verdicts(self) -> UserError:
        return UserError(f"{self.path} is no file of verdicts: name another by --verdicts.")

    def _forget(self, inode: int = -1) -> None:
        self._inode, self._offset = inode, 0
        self._said = {}

    def _check_head(self, text: bytes) -> None:
        try:
            head = Head.model_validate_json(text)
        except ValidationError:
            raise self._no_verdicts() from None
        if head.verdicts_format != VERDICTS_FORMAT:
            raise UserError(
                f"{self.path} has format {head.verdicts_format}, this program reads {VERDICTS_FORMAT}: use the version "
                "of saliency-prompt that wrote it."
            )
