import struct
import zlib

import cv2
import numpy as np
import pytest

from saliency_prompt.schemas.labels.base import DecodeConfig
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.decode import decode_image
from saliency_prompt.stages.png_chunks import without_remarks


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture
def plain() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def with_profile(data: bytes) -> bytes:
    head = 8 + 25
    profile = chunk(b"iCCP", b"broken\0\0" + zlib.compress(b"no profile at all"))
    return data[:head] + profile + chunk(b"tEXt", b"a\0b") + data[head:]


def test_a_broken_profile_is_not_talked_about(plain: bytes, capfd) -> None:
    noisy = with_profile(plain)
    cv2.imdecode(np.frombuffer(noisy, np.uint8), cv2.IMREAD_COLOR)
    talked = capfd.readouterr().err
    image = decode_image(noisy, ImageRef(1, "a.png", ""), DecodeConfig(short_side=40, long_side=64))
    assert capfd.readouterr().err == ""
    reference = decode_image(plain, ImageRef(1, "a.png", ""), DecodeConfig(short_side=40, long_side=64))
    np.testing.assert_array_equal(image.pixels, reference.pixels)
    assert image.sha256 != reference.sha256  # of the file as it is
    assert "iCCP" in talked or talked == ""  # libpng's own version decides


def test_nothing_else_is_touched(plain: bytes) -> None:
    assert without_remarks(plain) is plain
    assert without_remarks(with_profile(plain)) == plain
    for cut in range(60):
        broken = with_profile(plain)[:cut]
        assert without_remarks(broken) == broken
    assert without_remarks(b"\xff\xd8 a jpeg") == b"\xff\xd8 a jpeg"
