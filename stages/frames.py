"""Frames of videos, read as if each were a file: `clip.mp4/000012345ms.370.bmp` is frame 370, shown at 12.345 s.

A frame is what a decoder gives that started at the video's beginning, whoever asks for it and when: seeking lands on
other frames in some formats, and shows torn ones in others. Going on from where one stands is free, going back costs
the way from the beginning. As a BMP its bytes depend on its pixels alone.
"""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import cv2

from .names import name_on_disk
from .read import BadImage

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a video goes into its row

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
KEPT_BYTES = 1 << 27  # of frames that were passed on the way and may be asked for next
_FRAME = re.compile(r"(?P<video>.+?)/(?:every(?P<every>\d{1,9})/)?\d{9,}ms\.(?P<number>\d{1,9})\.bmp")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's place: the video as it is stored, its number from 0, and of how many frames one is asked for."""

    video: str
    number: int
    every: int = 1


def frame_name(video: str, number: int, ms: int) -> str:
    """The name of a frame, as if the video were a folder."""
    return f"{video}/{ms:09d}ms.{number}.bmp"


def frame_address(video: str, number: int, ms: int, every: int) -> str:
    """Where a frame is: its name, and how often one is asked for."""
    return frame_name(f"{video}/every{every}", number, ms)


def split_frame(address: str) -> Frame | None:
    """The frame of a name or address, None for any other."""
    found = _FRAME.fullmatch(address)
    return None if found is None else Frame(found["video"], int(found["number"]), int(found["every"] or 1) or 1)


def list_frames(video: str, every: int) -> Iterator[tuple[int, int]]:
    """Number and time in milliseconds of every n-th frame that can be decoded; nothing for what is no video.

    Times grow: where a file's own do not, they are a millisecond after the one before.
    """
    capture = cv2.VideoCapture(name_on_disk(video))
    try:
        number, last = 0, -1
        while capture.grab():
            last = max(last + 1, round(capture.get(cv2.CAP_PROP_POS_MSEC)))
            if number % every == 0:
                yield number, last
            number += 1
    finally:
        capture.release()


def read_frame(frame: Frame, max_bytes: int) -> bytes:
    """A frame as the bytes of a BMP. Raises BadImage if the video ends before it, or if it is above `max_bytes`."""
    data = _open(frame.video).read(frame)
    if len(data) > max_bytes:
        raise BadImage("too_many_bytes", f"{len(data)} bytes, above decode.max_bytes = {max_bytes}")
    return data


@dataclass(slots=True, eq=False)
class _Video:
    """A decoder that only goes forward, and frames that it has passed."""

    path: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    capture: cv2.VideoCapture | None = None
    number: int = -1  # of the frame that the decoder stands at
    kept: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    held: int = 0

    def read(self, frame: Frame) -> bytes:
        """Threads that come out of order find what the first of them passed."""
        with self.lock:
            if frame.number in self.kept:
                return self.kept[frame.number]
            if self.capture is None or self.number >= frame.number:
                self._rewind()
            assert self.capture is not None
            while self.number < frame.number:
                if not self.capture.grab():
                    self.capture = None
                    raise BadImage("decode_failed", "the video ends before this frame")
                self.number += 1
                if self.number == frame.number or self.number % frame.every == 0:
                    self._keep()
            return self.kept[frame.number]

    def _rewind(self) -> None:
        self.capture = cv2.VideoCapture(name_on_disk(self.path))
        self.number = -1

    def _keep(self) -> None:
        assert self.capture is not None
        done, pixels = self.capture.retrieve()
        if not done:
            self.capture = None
            raise BadImage("decode_failed", "broken video data")
        _, data = cv2.imencode(".bmp", pixels)
        self.kept[self.number] = data.tobytes()
        self.held += data.nbytes
        while self.held > KEPT_BYTES and len(self.kept) > 1:
            self.held -= len(self.kept.popitem(last=False)[1])


@lru_cache(maxsize=4)
def _open(path: str) -> _Video:
    return _Video(path)
