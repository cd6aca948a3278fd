r"""How a name of a file becomes text that can be stored, and text the name again.

A name on disk is bytes. What of it is UTF-8 is stored as it is; every other byte, say 0xE9, becomes the seven
characters `\udce9` (how Python writes the character that stands for it). A name that by chance holds such
characters keeps them apart by `\udc5c`, which stands for its backslash. So every name has one stored form, and no two
names share one. Lists may use the same form.
"""

import re

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_ESCAPE = re.compile(r"\\udc(5c|[89a-f][0-9a-f])")


def stored_name(name: str) -> str:
    """A name as text that can be stored; usual names are not changed. Half characters, of a json, become escapes."""
    if "\\" in name:
        name = _ESCAPE.sub(r"\\udc5cudc\1", name)
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def name_on_disk(stored: str) -> str:
    """The name that `stored_name` was given, as Python names files."""
    if "\\" not in stored:
        return stored
    return _ESCAPE.sub(lambda found: "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16)), stored)
