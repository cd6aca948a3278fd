import hashlib
import io
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from corpus import BadCorpus, encode, exif, png_16_bit, scene
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.labels.base import DecodeConfig
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.decode import check_image, decode_image, resized_shape, upright_shape
from saliency_prompt.stages.read import BadImage, read_image_bytes

REF = ImageRef(1, "a.jpg", "a.jpg")
IMAGE = scene(0, 64, 96)[0]
AS_IS = DecodeConfig(short_side=64, long_side=96)  # the size of IMAGE


def rgb(data: bytes) -> np.ndarray:
    return decode_image(data, REF, AS_IS).pixels


def reason(data: bytes, ref: ImageRef = REF, config: DecodeConfig = AS_IS) -> str:
    with pytest.raises(BadImage) as caught:
        decode_image(data, ref, config)
    return caught.value.reason


@pytest.mark.parametrize("listed", [False, True])
def test_every_kind_of_bad_input(bad_corpus: BadCorpus, listed: bool) -> None:
    config = DecodeConfig()
    source = (
        open_source(str(bad_corpus.coco), root=str(bad_corpus.folder))
        if listed
        else open_source(str(bad_corpus.folder))
    )
    outcome: dict[str, str | None] = {}
    messages = []
    for ref in source.refs():
        try:
            image = decode_image(read_image_bytes(ref, config.max_bytes), ref, config)
        except BadImage as bad:
            outcome[ref.file_name] = bad.reason
            messages.append(str(bad))
        else:
            outcome[ref.file_name] = None
            assert image.pixels.shape == (800, 1200, 3)
    assert str(bad_corpus.folder.parent) not in "".join(messages)
    assert outcome == (bad_corpus.in_coco if listed else bad_corpus.in_folder)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(0, 20))
def test_no_cut_file_passes(kind: str, lossless: bool, share: float, less: int) -> None:
    options = {"lossless": lossless} if kind == "WEBP" else {"progressive": lossless} if kind == "JPEG" else {}
    data = encode(IMAGE, kind, **options)
    for cut in (data[: int(len(data) * share)], data[: len(data) - 1 - less]):
        assume(cut)
        assert reason(cut) in ("decode_failed", "unsupported_format")


def test_lossless_files_give_their_pixels() -> None:
    for data in (encode(IMAGE, "PNG"), encode(IMAGE, "WEBP", lossless=True), png_16_bit(IMAGE)):
        np.testing.assert_array_equal(rgb(data), IMAGE)


def test_jpeg_agrees_with_an_independent_reader() -> None:
    data = encode(IMAGE, quality=90)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(rgb(data) - expected).max() <= 2


def test_grey_palette_alpha_and_cmyk_become_rgb() -> None:
    grey = np.asarray(Image.fromarray(IMAGE).convert("L"))
    np.testing.assert_array_equal(rgb(encode(IMAGE, "PNG", mode="L")), np.dstack([grey] * 3))
    wide_grey = cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(rgb(wide_grey), np.dstack([grey] * 3))
    palette = Image.fromarray(IMAGE).convert("P")
    np.testing.assert_array_equal(rgb(encode(IMAGE, "PNG", mode="P")), np.asarray(palette.convert("RGB")))
    transparent = Image.fromarray(np.dstack([IMAGE, np.zeros((64, 96), np.uint8)]))
    buffer = io.BytesIO()
    transparent.save(buffer, "PNG")
    np.testing.assert_array_equal(rgb(buffer.getvalue()), IMAGE)
    assert np.abs(rgb(encode(IMAGE, mode="CMYK", quality=98)).astype(int) - IMAGE).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_ignored_or_applied(orientation: int) -> None:
    data = encode(IMAGE, "PNG", exif=exif(orientation))
    stored = decode_image(data, REF, AS_IS)
    np.testing.assert_array_equal(stored.pixels, IMAGE)
    assert (stored.width, stored.height, stored.exif_orientation) == (96, 64, orientation)

    config = AS_IS.model_copy(update={"exif": "apply"})
    upright = decode_image(data, REF, config)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(upright.pixels, expected)
    assert upright.pixels.flags.c_contiguous
    assert (
        (upright.height, upright.width) == expected.shape[:2] == upright_shape(check_image(data, REF, config), config)
    )


def test_declared_sizes_are_those_of_the_image_worked_on() -> None:
    data = encode(IMAGE, exif=exif(6))
    lying = ImageRef(1, "a.jpg", "a.jpg", width=64, height=96)
    assert reason(data, lying) == "size_mismatch"
    assert reason(data, ImageRef(1, "a.jpg", "a.jpg", height=65)) == "size_mismatch"
    turned = decode_image(data, lying, AS_IS.model_copy(update={"exif": "apply"}))
    assert (turned.width, turned.height) == (64, 96)


def test_limits_hold_to_the_pixel_and_the_byte() -> None:
    data = encode(IMAGE)

    def limit(**limits: int) -> DecodeConfig:
        return AS_IS.model_copy(update=limits)

    decode_image(data, REF, limit(max_bytes=len(data), max_pixels=64 * 96, min_side=64))
    assert reason(data, config=limit(max_bytes=len(data) - 1)) == "too_many_bytes"
    assert reason(data, config=limit(max_pixels=64 * 96 - 1)) == "too_many_pixels"
    assert reason(data, config=limit(min_side=65)) == "too_small"


def test_a_header_that_lies_about_the_size_fails() -> None:
    data = encode(IMAGE, "WEBP", exif=exif(1))
    canvas = data.index(b"VP8X") + 12
    assert check_image(data, REF, AS_IS).width == 96
    lying = data[:canvas] + bytes([50]) + data[canvas + 1 :]
    assert check_image(lying, REF, AS_IS).width == 51
    assert reason(lying) == "decode_failed"


def test_the_digest_is_of_the_input() -> None:
    data = encode(IMAGE)
    assert decode_image(data, REF, DecodeConfig()).sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("size", "config", "expected"),
    [
        ((480, 640), DecodeConfig(), (800, 1067)),
        ((640, 426), DecodeConfig(), (1202, 800)),
        ((640, 427), DecodeConfig(), (1199, 800)),
        ((300, 640), DecodeConfig(), (625, 1333)),  # the longer side binds
        ((3000, 4000), DecodeConfig(), (800, 1067)),
        ((480, 640), DecodeConfig(align=32), (800, 1056)),
        ((480, 640), DecodeConfig(keep_ratio=False), (800, 1333)),
        ((640, 480), DecodeConfig(keep_ratio=False), (800, 1333)),
        ((480, 640), DecodeConfig(keep_ratio=False, align=32), (800, 1344)),
        ((8, 100_000), DecodeConfig(), (1, 1333)),
        ((8, 100_000), DecodeConfig(align=32), (32, 1344)),
    ],
)
def test_resized_shapes(size: tuple[int, int], config: DecodeConfig, expected: tuple[int, int]) -> None:
    assert resized_shape(*size, config) == expected


@settings(deadline=None, max_examples=50)
@given(st.integers(8, 5000), st.integers(8, 5000), st.sampled_from([1, 8, 32]))
def test_resizing_keeps_its_bounds(height: int, width: int, align: int) -> None:
    config = DecodeConfig(align=align)
    rows, columns = resized_shape(height, width, config)
    assert (columns, rows) == resized_shape(width, height, config)
    assert rows % align == columns % align == 0
    # Rounding to the nearest multiple moves a side by half of one at most.
    assert min(rows, columns) <= 800 + align / 2
    assert max(rows, columns) <= 1333 + align / 2
    assert min(rows, columns) >= 800 - align / 2 or max(rows, columns) >= 1333 - align / 2


def test_shrinking_averages_and_enlarging_keeps_a_flat_image_flat() -> None:
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 200
    half = decode_image(encode(stripes, "PNG"), REF, DecodeConfig(short_side=32, long_side=48)).pixels
    assert half.shape == (32, 48, 3)
    assert (half == 100).all()
    flat = np.full((64, 96, 3), (7, 99, 201), np.uint8)
    large = decode_image(encode(flat, "PNG"), REF, DecodeConfig()).pixels
    assert large.shape == (800, 1200, 3)
    assert (large == (7, 99, 201)).all()


@pytest.mark.parametrize("short_side", [32, 64, 128])
def test_a_slot_of_a_batch_is_written_in_place(short_side: int) -> None:
    config = DecodeConfig(short_side=short_side, long_side=short_side * 3 // 2)
    data = encode(IMAGE)
    batch = np.zeros((2, short_side, short_side * 3 // 2, 3), np.uint8)
    image = decode_image(data, REF, config, out=batch[1])
    assert np.shares_memory(image.pixels, batch)
    np.testing.assert_array_equal(batch[1], decode_image(data, REF, config).pixels)
    assert not batch[0].any()


def test_threads_decode_alike() -> None:
    images = [encode(scene(i, 90 + i, 120)[0]) for i in range(8)]
    decode: Callable[[bytes], bytes] = lambda data: decode_image(data, REF, DecodeConfig()).pixels.tobytes()  # noqa: E731
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(decode, images * 2)) == [decode(data) for data in images] * 2
    assert cv2.getNumThreads() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("setting", ["ignore", "apply"])
def test_tiff_is_turned_as_jpeg_is(orientation: int, setting: str) -> None:
    image = scene(0, 40, 60)[0]
    config = DecodeConfig(short_side=40, long_side=60, exif=setting)
    shots = [encode(image, kind, exif=exif(orientation)) for kind in ("TIFF", "PNG")]
    tiff, png = (decode_image(shot, REF, config) for shot in shots)
    assert np.array_equal(tiff.pixels, png.pixels)
    assert (tiff.width, tiff.height, tiff.exif_orientation) == (png.width, png.height, orientation)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_bmp_and_tiff_give_the_pixels_of_png(kind: str, mode: str) -> None:
    image = (
        np.dstack([scene(0, 40, 60)[0], np.full((40, 60), 255, np.uint8)]) if mode == "RGBA" else scene(0, 40, 60)[0]
    )
    config = DecodeConfig(short_side=40, long_side=60)
    one, other = (decode_image(encode(image, form, mode=mode), REF, config).pixels for form in (kind, "PNG"))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("rows_from_the_top", [False, True])
def test_bmp_from_the_top_and_short(rows_from_the_top: bool) -> None:
    data = bytearray(encode(scene(0, 40, 60)[0], "BMP"))
    if rows_from_the_top:
        struct.pack_into("<i", data, 22, -40)
    assert decode_image(bytes(data), REF, DecodeConfig(short_side=40)).height == 40
    for broken in (struct.pack("<i", -(2**31)), struct.pack("<i", 2**31 - 1)):
        data[22:26] = broken
        with pytest.raises(BadImage) as caught:
            decode_image(bytes(data), REF, DecodeConfig())
        assert caught.value.reason == "too_many_pixels"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_a_tiff_that_is_cut_fails(compression: str | None, share: float) -> None:
    whole = encode(scene(0, 40, 60)[0], "TIFF", compression=compression)
    with pytest.raises(BadImage):
        decode_image(whole[: int(len(whole) * share)], REF, DecodeConfig())


@pytest.mark.parametrize(
    ("tag", "value"), [(256, 0), (256, 2**31), (257, 2**32 - 1), (277, 0), (277, 60_000), (322, 2**20), (323, 2**31)]
)
def test_a_tiff_that_promises_too_much_is_not_decoded(tag: int, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {256: 60, 257: 40, 258: 8, 259: 1, 262: 2, 273: 8, 277: 3, 278: 40, 279: 7200, 322: 16, 323: 16}
    entries = b"".join(struct.pack("<HHII", key, 4, 1, one) for key, one in sorted((fields | {tag: value}).items()))
    data = b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(BadImage):
        decode_image(data, REF, DecodeConfig())
