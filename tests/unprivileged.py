"""Permission cases as a user to whom they apply: root reads everything."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534  # a number needs no account


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder of a user that is not root, as whom the block runs; the suite's own user if that is not root."""
    folder = Path(tempfile.mkdtemp(prefix="unprivileged"))
    if root := os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)
