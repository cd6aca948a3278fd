"""Five photographs that ship inside scikit-image, so that the first run needs no data and no network."""

import shutil
from pathlib import Path

from ..schemas.errors import UserError

PHOTOGRAPHS = {
    "astronaut.png": "astronaut.png",
    "chelsea.png": "chelsea.png",
    "coffee.png": "coffee.png",
    "motorcycle.png": "motorcycle_left.png",
    "rocket.jpg": "rocket.jpg",
}


def write_photographs(folder: Path) -> Path:
    """Copy the five photographs into `folder`. Raises UserError if scikit-image is not installed."""
    try:
        import skimage.data
    except ImportError:
        raise UserError("The demo's photographs ship with scikit-image: pip install 'saliency-prompt[demo]'.") from None
    shipped = Path(skimage.data.__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in PHOTOGRAPHS.items():
        shutil.copyfile(shipped / file, folder / name)
    return folder
