"""JPEGs that go over their pixels again and again, and decoders that do not come back."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from corpus import encode, exif, scene
from saliency_prompt.schemas.labels.base import DecodeConfig
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages import overdue
from saliency_prompt.stages.decode import decode_image
from saliency_prompt.stages.header import MAX_SCANS, count_scans
from saliency_prompt.stages.overdue import named_if_overdue, tell_overdue
from saliency_prompt.stages.read import BadImage

GREY = np.full((64, 96, 3), 128, np.uint8)
REF = ImageRef(1, "many.jpg", "many.jpg")


def with_scans(count: int, *, progressive: bool = True) -> bytes:
    """A JPEG whose last scan is repeated until there are so many."""
    whole = encode(GREY if progressive else scene(0, 64, 96)[0], progressive=progressive, mode="L")
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (count - count_scans(whole)) + b"\xff\xd9"


@pytest.mark.parametrize(("count", "refused"), [(MAX_SCANS, False), (MAX_SCANS + 1, True), (20_000, True)])
def test_scans_are_counted_before_a_pixel_is_decoded(count: int, refused: bool) -> None:
    data = with_scans(count)
    if not refused:
        assert count_scans(data) == count
        assert decode_image(data, REF, DecodeConfig(short_side=64)).width == 96
        return
    with pytest.raises(BadImage) as caught:
        decode_image(data, REF, DecodeConfig(short_side=64))
    assert caught.value.reason == "too_many_scans"


def test_scans_of_usual_files() -> None:
    image = scene(0, 64, 96)[0]
    assert count_scans(encode(image)) == 1
    assert count_scans(encode(image, "PNG")) == 1
    assert 2 < count_scans(encode(image, progressive=True)) <= 12
    # A preview inside EXIF has scans of its own, which are not the image's.
    preview = b"\xff\xe1" + (len(b"Exif\0\0") + 2 + 40 * 2).to_bytes(2, "big") + b"Exif\0\0" + b"\xff\xda" * 40
    plain = encode(image, progressive=True, exif=exif(6))
    assert count_scans(plain[:2] + preview * 3 + plain[2:]) == count_scans(plain)


def test_a_sequential_file_of_many_scans_counts_them_too() -> None:
    whole = encode(scene(0, 64, 96)[0])
    frame = whole.index(b"\xff\xc0")
    start = whole.index(b"\xff\xda")
    one = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x00" * 4  # of three components, the first
    data = whole[:frame] + whole[frame:start] + one * (MAX_SCANS + 1) + b"\xff\xd9"
    assert count_scans(data) == MAX_SCANS + 1


@pytest.mark.parametrize("tail", [b"\xff\xe0\x00\x02" * 100_000, b"\xff\xda\x00\x00" * 100_000, b"\xff" * 400_000])
def test_tiny_segments_end_the_count(tail: bytes) -> None:
    whole = encode(scene(0, 64, 96)[0], progressive=True)
    assert count_scans(whole[:-2] + tail) in (count_scans(whole), MAX_SCANS + 1)


def test_what_takes_long_is_named(caplog: pytest.LogCaptureFixture) -> None:
    later = time.monotonic() + overdue.OVERDUE_S + 1
    with named_if_overdue("slow.jpg"):
        assert tell_overdue(time.monotonic()) == []
        assert tell_overdue(later) == ["slow.jpg"]
        assert tell_overdue(later) == []  # said once for each span
        assert tell_overdue(later + overdue.OVERDUE_S) == ["slow.jpg"]
    assert tell_overdue(later + 1000) == []
    assert "slow.jpg has been decoding" in caplog.text


def test_decoding_is_watched(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(overdue, "OVERDUE_S", -1.0)
    told = threading.Event()
    monkeypatch.setattr(overdue.log, "warning", lambda *said: told.set() if said[1] == "many.jpg" else None)
    monkeypatch.setattr(overdue, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(overdue, "_watcher", [])
    monkeypatch.setattr("cv2.imdecode", lambda *_: told.wait(60) and None)
    with pytest.raises(BadImage):
        decode_image(encode(GREY), REF, DecodeConfig(short_side=64))
    assert told.is_set()


STUCK = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from saliency_prompt.pipeline.signals import graceful_stop
pool = ThreadPoolExecutor(1)
pool.submit(time.sleep, 600)  # stands for a decoder that does not come back
with graceful_stop(lambda: print("stopping", flush=True)) as stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_a_process_whose_threads_hang(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.stdout.readline() == "stopping\n"
            process.send_signal(number)
            assert process.wait(60) == 130
        finally:
            process.kill()
