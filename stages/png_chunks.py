"""PNG files without the chunks that say nothing of pixels, about which libpng would complain on the terminal."""

from typing import Final

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_SILENT: Final = frozenset({b"iCCP", b"cHRM", b"gAMA", b"sRGB", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf"})


def without_remarks(data: bytes) -> bytes:
    """The file without colour profiles, texts and times before its pixels (W3C PNG 3rd ed., 11.3).

    OpenCV uses none of them. Anything that is no PNG, or is broken before the pixels, is given back as it is.
    """
    if not data.startswith(_SIGNATURE):
        return data
    kept = [_SIGNATURE]
    at, dropped = len(_SIGNATURE), False
    while True:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        if len(kind) < 4 or end > len(data):
            return data
        if kind in (b"IDAT", b"IEND"):
            break
        if kind in _SILENT:
            dropped = True
        else:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]]) if dropped else data
