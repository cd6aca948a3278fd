import struct
from dataclasses import asdict
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import encode, exif, png_that_claims, scene
from saliency_prompt.stages.header import ImageHeader, exif_orientation, parse_header
from saliency_prompt.stages.read import BadImage

IMAGE = scene(0, 40, 60)[0]
SAMPLES = {
    "jpeg": encode(IMAGE, exif=exif(6)),
    "progressive": encode(IMAGE, progressive=True),
    "grey": encode(IMAGE, mode="L"),
    "cmyk": encode(IMAGE, mode="CMYK"),
    "png": encode(IMAGE, "PNG", exif=exif(3)),
    "palette": encode(IMAGE, "PNG", mode="P"),
    "grey_alpha": encode(IMAGE, "PNG", mode="LA"),
    "webp": encode(IMAGE, "WEBP"),
    "webp_lossless": encode(IMAGE, "WEBP", lossless=True),
    "webp_alpha": encode(np.dstack([IMAGE, IMAGE[..., 0]]), "WEBP", mode="RGBA"),
    "webp_exif": encode(IMAGE, "WEBP", exif=exif(8)),
    "bmp": encode(IMAGE, "BMP"),
    "bmp_palette": encode(IMAGE, "BMP", mode="P"),
    "bmp_alpha": encode(np.dstack([IMAGE, IMAGE[..., 0]]), "BMP", mode="RGBA"),
    "tiff": encode(IMAGE, "TIFF", exif=exif(7)),
    "tiff_packed": encode(IMAGE, "TIFF", compression="tiff_lzw"),
    "tiff_grey": encode(IMAGE, "TIFF", mode="L"),
    "tiff_palette": encode(IMAGE, "TIFF", mode="P"),
    "tiff_cmyk": encode(IMAGE, "TIFF", mode="CMYK"),
}
FORMATS = {
    "jpeg": ("jpeg", 3, 6),
    "progressive": ("jpeg", 3, 1),
    "grey": ("jpeg", 1, 1),
    "cmyk": ("jpeg", 4, 1),
    "png": ("png", 3, 3),
    "palette": ("png", 3, 1),
    "grey_alpha": ("png", 2, 1),
    "webp": ("webp", 3, 1),
    "webp_lossless": ("webp", 3, 1),
    "webp_alpha": ("webp", 4, 1),
    "webp_exif": ("webp", 3, 8),
    "bmp": ("bmp", 3, 1),
    "bmp_palette": ("bmp", 3, 1),
    "bmp_alpha": ("bmp", 4, 1),
    "tiff": ("tiff", 3, 7),
    "tiff_packed": ("tiff", 3, 1),
    "tiff_grey": ("tiff", 1, 1),
    "tiff_palette": ("tiff", 3, 1),
    "tiff_cmyk": ("tiff", 4, 1),
}


def reason(data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        parse_header(data)
    return caught.value.reason


def outcome(data: bytes) -> ImageHeader | str:
    try:
        return parse_header(data)
    except BadImage as bad:
        return bad.reason


@pytest.mark.parametrize("name", SAMPLES)
def test_real_files(name: str) -> None:
    kind, components, orientation = FORMATS[name]
    assert asdict(parse_header(SAMPLES[name])) == {
        "format": kind,
        "width": 60,
        "height": 40,
        "components": components,
        "exif_orientation": orientation,
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["JPEG", "PNG", "WEBP"]), st.integers(1, 8))
def test_any_size_and_orientation(height: int, width: int, kind: str, orientation: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    header = parse_header(encode(image, kind, exif=exif(orientation)))
    assert (header.height, header.width, header.exif_orientation) == (height, width, orientation)


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged_headers_never_break_the_parser(name: str, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, min(200, len(damaged) - 1)))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    header = outcome(bytes(damaged))
    if isinstance(header, str):
        assert header in ("unsupported_format", "decode_failed")
    else:
        assert header.width > 0
        assert header.height > 0
        assert 1 <= header.exif_orientation <= 8


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\0\0\0\0WEBPVP8X", b"RIFF\0\0\0\0WEBPVP8 "]
    ),
    st.binary(max_size=200),
)
def test_noise_behind_a_magic_number(magic: bytes, noise: bytes) -> None:
    header = outcome(magic + noise)
    assert isinstance(header, ImageHeader) or header == "decode_failed"


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([b"II*\0", b"MM\0*", b""]), st.binary(max_size=100))
def test_noise_in_exif(magic: bytes, noise: bytes) -> None:
    assert 1 <= exif_orientation(magic + noise) <= 8


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_values(order: str) -> None:
    def block(kind: int, count: int, value: int) -> bytes:
        head = b"II*\0" if order == "<" else b"MM\0*"
        entry = struct.pack(order + "HHIHxx", 0x0112, kind, count, value)
        other = struct.pack(order + "HHII", 0x0100, 4, 1, 60)
        return head + struct.pack(order + "IH", 8, 2) + other + entry

    assert exif_orientation(block(3, 1, 6)) == 6
    for wrong in ((3, 1, 0), (3, 1, 9), (4, 1, 6), (3, 2, 6)):
        assert exif_orientation(block(*wrong)) == 1


def test_every_cut_before_the_size_is_told() -> None:
    for data in SAMPLES.values():
        assert reason(data[:12]) == "decode_failed" or data[:4] == b"RIFF"
    assert reason(b"") == "unsupported_format"
    assert reason(SAMPLES["webp"][:11]) == "unsupported_format"
    assert reason(SAMPLES["webp"][:20]) == "decode_failed"


def test_sizes_that_are_no_sizes() -> None:
    assert reason(png_that_claims(0, 10)) == "decode_failed"
    assert reason(SAMPLES["jpeg"].replace(struct.pack(">HH", 40, 60), bytes(4), 1)) == "decode_failed"
    assert parse_header(png_that_claims(20_000, 30_000)).width == 20_000


def test_stray_bytes_and_fill_before_a_marker_are_skipped() -> None:
    data = SAMPLES["progressive"]
    second = 4 + int.from_bytes(data[4:6], "big")
    padded = data[:second] + b"\0\0stray\xff\0\xff\xff\xff" + data[second:]
    assert parse_header(padded) == parse_header(data)


def test_a_thumbnail_does_not_pass_for_the_photograph() -> None:
    data = SAMPLES["progressive"]
    small = encode(scene(1, 8, 8)[0])
    segment = b"\xff\xe1" + struct.pack(">H", len(small) + 8) + b"Thumb\0" + small
    assert parse_header(data[:2] + segment + data[2:]).width == 60


def test_files_made_of_tiny_segments_end_soon() -> None:
    start = perf_counter()
    assert reason(b"\xff\xd8" + b"\xff\xe0\0\2" * 3_000_000) == "decode_failed"
    chunks = SAMPLES["png"][:33] + (bytes(4) + b"tEXt" + bytes(4)) * 1_000_000
    assert parse_header(chunks).exif_orientation == 1
    webp = b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<IB9s", 10, 8, bytes(9)) + (b"ABCD" + bytes(4)) * 1_000_000
    assert parse_header(webp).exif_orientation == 1
    assert perf_counter() - start < 1
