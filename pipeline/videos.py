"""Every n-th frame of a video or of the videos in a folder, or every n-th photograph of a folder."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..schemas.records import ImageRef
from ..stages.coverage import every_nth
from ..stages.frames import VIDEO_SUFFIXES, frame_address, frame_name, list_frames
from ..stages.names import stored_name
from .naming import Exif, NameIds
from .walk import Files

if TYPE_CHECKING:
    from .sources import Source

log = logging.getLogger(__name__)


class Videos:
    """Every n-th frame of videos, one video after another, by time.

    Ids come from the video's name and the frame's time: a frame has the same one whatever the step. A video that
    cannot be decoded at all is an image that will be set aside; one that is broken further on counts as far as it goes.
    """

    exif: Exif = "apply"

    def __init__(self, files: Files, folder: str | None, every: int) -> None:
        self.description = every_nth(files.description, every)
        self.folder = folder
        self.ignored = 0
        self._files = files
        self._every = every

    def refs(self) -> Iterator[ImageRef]:
        """The frames. Every video is decoded once from end to end, to know its frames."""
        ids = NameIds()
        for video in self._files.refs():
            found = False
            for number, ms in list_frames(video.uri, self._every) if video.uri else ():
                found = True
                place = frame_address(video.uri, number, ms, self._every)
                yield ImageRef(ids.give(f"{video.file_name}/{ms}"), frame_name(video.file_name, number, ms), place)
            if not found:
                log.warning("%s cannot be decoded as a video: it is set aside", video.file_name)
                yield video


class EveryNth:
    """Every n-th image of another source: of a folder of frames, in the order of their names."""

    def __init__(self, source: "Source", every: int) -> None:
        self.description = every_nth(source.description, every)
        self.folder = source.folder
        self.ignored = 0
        self.exif: Exif = source.exif
        self._source = source
        self._every = every

    def refs(self) -> Iterator[ImageRef]:
        """The first, and every n-th after it."""
        for number, ref in enumerate(self._source.refs()):
            if number % self._every == 0:
                yield ref
        self.ignored = self._source.ignored


def open_videos(path: Path, every: int, follow_links: bool) -> Videos | None:
    """The videos at a path: itself, or those below it; None if there are none."""
    if path.is_file() and is_video(path.name):
        folder = os.path.realpath(path.parent)
        description = str(Path(folder, path.name))
        return Videos(Files(folder, (path.name.replace("[", "[[]"),), description, follow_links, is_video), None, every)
    if path.is_dir() and any(is_video(name) for _, _, names in os.walk(path) for name in names):
        root = os.path.realpath(path)
        return Videos(Files(root, ("**", "*"), root, follow_links, is_video), root, every)
    return None


def is_video(name: str) -> bool:
    """Whether a name is that of a video, by its suffix."""
    return stored_name(name).lower().endswith(VIDEO_SUFFIXES)
