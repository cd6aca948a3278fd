"""`import-masks`: from anybody's masks to the configuration and the photographs of a run."""

from pathlib import Path

from ..schemas.errors import UserError
from ..schemas.labels.imported import ImportedConfig, MaskFormat
from ..stages.mask_files.registry import FORMATS, guess_format
from .sources import Source, open_source


def with_masks(config: ImportedConfig, masks: str, kind: MaskFormat | None = None) -> ImportedConfig:
    """The configuration with the masks at a place: their format (guessed if not given), digest and classes.

    Raises UserError if there are none.
    """
    path = Path(masks).expanduser().absolute()
    if not path.exists():
        raise UserError(f"{masks} does not exist: name a COCO json, or a folder of masks.")
    found_format = kind or guess_format(path)
    files = FORMATS[found_format](path)
    section = config.masks.model_copy(
        update={
            "path": str(path),
            "format": found_format,
            "sha256": files.sha256,
            "class_names": config.masks.class_names or files.class_names,
        }
    )
    return config.model_copy(update={"masks": section})


def photographs_of(masks: str, photos: str | None, root: str | None) -> Source:
    """The photographs that masks belong to: those named, else the `images` of the COCO json itself.

    A folder beside a COCO json of instances is where its images are, so that sizes, ids and order are the json's.
    Raises UserError.
    """
    if Path(masks).suffix.lower() != ".json" or not _lists_images(masks):
        if photos is None:
            raise UserError(f"{masks} does not say which photographs it is of: name them with --photos.")
        return open_source(photos, root)
    if photos is None or ("://" not in photos and Path(photos).is_dir()):
        return open_source(masks, root or photos)
    return open_source(photos, root)


def _lists_images(masks: str) -> bool:
    import json

    try:
        content = json.loads(Path(masks).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("images"), list) and bool(content["images"])
