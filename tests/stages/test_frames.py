import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from corpus import write_video
from saliency_prompt.schemas.labels.base import DecodeConfig
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages import frames
from saliency_prompt.stages.decode import decode_image
from saliency_prompt.stages.read import BadImage, read_image_bytes


def level(data: bytes) -> int:
    """The grey level of a frame, by which the test's videos number their frames."""
    return round(float(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean()) / 6)


def test_addresses_are_told_from_paths() -> None:
    place = frames.frame_address("/v/a clip.mp4", 370, 12345, 10)
    assert place == "/v/a clip.mp4/every10/000012345ms.370.bmp"
    assert frames.split_frame(place) == frames.Frame("/v/a clip.mp4", 370, 10)
    assert frames.split_frame(frames.frame_name("a.mp4", 3, 120)) == frames.Frame("a.mp4", 3)
    for other in ("/photos/a.bmp", "/000012345ms.370.bmp", "a.mp4/12ms.370.bmp", "a.mp4/000012345ms.370.png"):
        assert frames.split_frame(other) is None


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_frames_are_those_of_the_numbers_in_whatever_order(tmp_path: Path, suffix: str) -> None:
    video = write_video(tmp_path / f"clip{suffix}", 40)
    listed = list(frames.list_frames(str(video), 3))
    assert [number for number, _ in listed] == list(range(0, 40, 3))
    assert [ms for _, ms in listed] == [40 * number for number, _ in listed]
    places = [frames.frame_address(str(video), number, ms, 3) for number, ms in listed]
    random.Random(0).shuffle(places)
    with ThreadPoolExecutor(4) as pool:
        found = dict(
            zip(places, pool.map(lambda place: read_image_bytes(ImageRef(1, "x", place), 1 << 20), places), strict=True)
        )
    for place, data in found.items():
        frame = frames.split_frame(place)
        assert frame is not None
        assert abs(level(data) - frame.number) <= 1
        image = decode_image(data, ImageRef(1, "x", place), DecodeConfig(short_side=48, long_side=64, min_side=1))
        assert (image.width, image.height) == (64, 48)
    frames._open.cache_clear()
    again = {place: read_image_bytes(ImageRef(1, "x", place), 1 << 20) for place in sorted(places)}
    assert again == found


def test_little_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "KEPT_BYTES", 30_000)  # three frames
    video = write_video(tmp_path / "clip.avi", 20)
    for number in (19, 2, 11):
        assert abs(level(frames.read_frame(frames.Frame(str(video), number), 1 << 20)) - number) <= 1
        assert len(frames._open(str(video)).kept) <= 3


def test_what_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.avi", 5)
    with pytest.raises(BadImage, match="ends before"):
        frames.read_frame(frames.Frame(str(video), 5), 1 << 20)
    with pytest.raises(BadImage, match="max_bytes"):
        frames.read_frame(frames.Frame(str(video), 2), 1000)
    with pytest.raises(BadImage, match="ends before"):
        frames.read_frame(frames.Frame(str(tmp_path / "gone.mp4"), 0), 1 << 20)
    (tmp_path / "file").touch()
    with pytest.raises(BadImage, match="Not a directory"):
        read_image_bytes(ImageRef(1, "x", str(tmp_path / "file" / "a.jpg")), 1 << 20)
    assert list(frames.list_frames(str(tmp_path / "file"), 1)) == []
