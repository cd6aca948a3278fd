"""Format, size and EXIF orientation of a photograph from its header, without decoding a pixel.

Formats: JPEG (ITU T.81 B.2), PNG (W3C PNG 3rd ed., 5 and 11.2.1), WebP (RFC 9649), BMP (BITMAPCOREHEADER and
BITMAPINFOHEADER), TIFF 6.0 (sections 2 and 8; the first image of a file), orientation as in EXIF 2.32 (tag 0x0112).
Everything here reads hostile bytes: offsets only grow, steps are counted, and reads beyond the end fail.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .read import BadImage

ImageFormat = Literal["jpeg", "png", "webp", "bmp", "tiff"]

# Segments or chunks looked at before the size must have appeared: more than 200 MB of full JPEG segments,
# and an end for files made of tiny ones.
_MAX_STEPS = 4096

# Scans of a JPEG that are decoded: encoders write 10 to 20, and each one goes over all blocks again. Without a limit
# 30 bytes in a file cost a pass over 100 million pixels.
MAX_SCANS = 64

# A marker that a decoder stops at: no fill byte, escaped byte, TEM or restart marker.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)

_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
_WIDTH_TAG, _HEIGHT_TAG, _PHOTOMETRIC_TAG, _SAMPLES_TAG, _TILE_TAGS = 256, 257, 262, 277, (322, 323)
_MAX_TILE_SIDE = 4096  # a decoder makes room for a whole tile, however small the image is
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_PNG_COMPONENTS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette holds RGB


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header says: stored size in pixels, colour components, EXIF orientation 1..8 (1 if absent)."""

    format: ImageFormat
    width: int
    height: int
    components: int
    exif_orientation: int = 1


def image_format(start: bytes) -> ImageFormat | None:
    """The format of a file by its first bytes (12 suffice), None if it is none of ours."""
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    if start[:4] in _BYTE_ORDERS:
        return "tiff"
    return "bmp" if start.startswith(b"BM") else None


def parse_header(data: bytes) -> ImageHeader:
    """The header of a photograph's file, from its bytes or a long enough beginning of them.

    Raises `BadImage`: `unsupported_format` by the first bytes, `decode_failed` if no valid size follows.
    A broken EXIF block counts as orientation 1, as in other readers: it says nothing about the pixels.
    """
    kind = image_format(data)
    if kind is None:
        # The sentence is part of old data sets' bytes, and so of their hashes: it does not follow the list of formats.
        raise BadImage("unsupported_format", "not JPEG, PNG or WebP by its first bytes")
    try:
        header = _PARSERS[kind](data)
    except (struct.error, IndexError) as error:
        raise BadImage("decode_failed", "the header is cut short") from error
    if header.width < 1 or header.height < 1:
        raise BadImage("decode_failed", f"the header says {header.width} x {header.height} pixels")
    return header


def count_scans(data: bytes) -> int:
    """Scans that decoding a JPEG's pixels goes through (ITU T.81 B.2), of other formats 1; MAX_SCANS + 1 is many.

    A sequential file whose first scan holds all components ends with it. So the bytes of common photographs are not
    searched; those of others are, once.
    """
    if not data.startswith(b"\xff\xd8"):
        return 1
    position, scans, components, progressive = 2, 0, 0, False
    for _ in range(_MAX_STEPS):
        found = _MARKER.search(data, position)
        if found is None or found[1] == b"\xd9":
            return scans
        marker, start = found[1][0], found.end()
        if _is_frame(marker):
            components, progressive = data[start + 7 : start + 8][0], marker in _PROGRESSIVE
        elif marker == 0xDA:
            scans += 1
            whole = data[start + 2 : start + 3] >= bytes([components])
            if scans > MAX_SCANS or (whole and not progressive):
                return scans
        position = start + int.from_bytes(data[start : start + 2], "big")
    return MAX_SCANS + 1


def exif_orientation(tiff: bytes) -> int:
    """The orientation (1..8) in the first directory of an EXIF block, 1 if absent or malformed."""
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, offset)
        for i in range(entries):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, offset + 2 + 12 * i)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _jpeg(data: bytes) -> ImageHeader:
    orientation = 1
    position = 2
    for _ in range(_MAX_STEPS):
        # Stray bytes between segments and fill bytes before a marker are skipped, as libjpeg does.
        position = data.find(b"\xff", position)
        if position < 0:
            break
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:  # escaped byte, TEM, RSTn: no length follows
            continue
        if marker in (0xD9, 0xDA):  # end of image, start of scan
            break
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2:
            break
        if _is_frame(marker):
            _, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
            return ImageHeader("jpeg", width, height, components, orientation)
        if marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[position + 8 : position + length])
        position += length
    raise BadImage("decode_failed", "no JPEG frame header")


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)  # SOFn; not DHT, JPG, DAC


def _png(data: bytes) -> ImageHeader:
    length, kind, width, height, _, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if (length, kind) != (13, b"IHDR") or colour not in _PNG_COMPONENTS:
        raise BadImage("decode_failed", "no valid PNG header chunk")
    orientation = 1
    position = 33
    for _ in range(_MAX_STEPS):
        chunk = data[position : position + 8]
        if len(chunk) < 8 or chunk[4:] == b"IDAT":
            break
        size = int.from_bytes(chunk[:4], "big")
        if chunk[4:] == b"eXIf":
            orientation = exif_orientation(data[position + 8 : position + 8 + size])
        position += 12 + size  # length, name, CRC
    return ImageHeader("png", width, height, _PNG_COMPONENTS[colour], orientation)


def _webp(data: bytes) -> ImageHeader:
    kind = data[12:16]
    if kind == b"VP8 ":
        start, width, height = struct.unpack_from("<3sHH", data, 23)
        if start != b"\x9d\x01\x2a":
            raise BadImage("decode_failed", "no WebP key frame")
        return ImageHeader("webp", width & 0x3FFF, height & 0x3FFF, 3)
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", data, 20)
        if signature != 0x2F:
            raise BadImage("decode_failed", "no lossless WebP signature")
        components = 4 if bits >> 28 & 1 else 3
        return ImageHeader("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, components)
    if kind == b"VP8X":
        flags, size = struct.unpack_from("<B3x6s", data, 20)
        width = int.from_bytes(size[:3], "little") + 1
        height = int.from_bytes(size[3:], "little") + 1
        orientation = _webp_orientation(data) if flags & 0x08 else 1
        return ImageHeader("webp", width, height, 4 if flags & 0x10 else 3, orientation)
    raise BadImage("decode_failed", "no WebP image chunk")


def _webp_orientation(data: bytes) -> int:
    """Orientation from the EXIF chunk, which stands behind the pixels."""
    position = 12
    for _ in range(_MAX_STEPS):
        chunk = data[position : position + 8]
        if len(chunk) < 8:
            break
        size = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"EXIF":
            # Some writers keep the JPEG prefix.
            return exif_orientation(data[position + 8 : position + 8 + size].removeprefix(b"Exif\0\0"))
        position += 8 + size + (size & 1)
    return 1


def _bmp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    elif size >= 40:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)  # a negative height: rows from the top
    else:
        raise BadImage("decode_failed", "no valid BMP header")
    return ImageHeader("bmp", width, abs(height), 4 if bits == 32 else 3)


def _tiff(data: bytes) -> ImageHeader:
    order = _BYTE_ORDERS[data[:4]]
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, offset)
    values = {_SAMPLES_TAG: 1}
    for i in range(min(entries, _MAX_STEPS)):
        place = offset + 2 + 12 * i
        tag, kind, count = struct.unpack_from(order + "HHI", data, place)
        if count == 1 and kind in (_SHORT, _LONG):
            (values[tag],) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), data, place + 8)
    if any(values.get(tag, 1) > _MAX_TILE_SIDE for tag in _TILE_TAGS):
        raise BadImage("decode_failed", f"TIFF tiles with a side above {_MAX_TILE_SIDE} pixels")
    if not 1 <= values[_SAMPLES_TAG] <= 5:
        raise BadImage("decode_failed", f"a TIFF of {values[_SAMPLES_TAG]} samples a pixel")
    components = 3 if values.get(_PHOTOMETRIC_TAG) == 3 else values[_SAMPLES_TAG]  # a palette holds RGB
    orientation = exif_orientation(data)
    return ImageHeader("tiff", values.get(_WIDTH_TAG, 0), values.get(_HEIGHT_TAG, 0), components, orientation)


_PARSERS: dict[ImageFormat, Callable[[bytes], ImageHeader]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": _bmp,
    "tiff": _tiff,
}
