"""From bytes to a resized RGB image; every limit is checked on the header, before memory is spent.

What OpenCV 5.0 does with broken bytes: a JPEG, PNG or WebP cut anywhere (at 50, 90, 99.9 %, or by its last byte)
gives None and so `decode_failed`; a PNG with a wrong checksum likewise. OpenCV 4.11 agrees on JPEG, 4.10 still
handed out the torn image. A JPEG with a flipped byte, or cut and then closed by an end marker, decodes without
complaint: only the recorded sha256 of the input tells it apart.

What becomes of the kinds of pixels: grey is repeated over three channels, a palette is looked up, CMYK is
converted without a colour profile, 16 bits keep their upper 8 (a TIFF of floats fails), an animation or a TIFF of
pages gives its first. Alpha is dropped, so pixels under transparency count with the colour stored there: composing
them over a colour of our choice would draw edges that nobody photographed.
"""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..schemas.labels.base import DecodeConfig
from ..schemas.records import ImageRecord, ImageRef, MaskSet
from .header import MAX_SCANS, ImageHeader, count_scans, parse_header
from .overdue import named_if_overdue
from .png_chunks import without_remarks
from .read import BadImage

# Images are decoded side by side in a thread pool (OpenCV releases the GIL): threads inside one image would
# only fight over the same cores.
cv2.setNumThreads(1)
# What is wrong with an image goes into its row; OpenCV would also print it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """A resized image and the facts of its file.

    `pixels` is uint8 [h, w, 3], RGB, C-contiguous. `width` and `height` are those of the stored image (after
    rotation with `exif = "apply"`): the size masks are written at. `sha256` is the hex digest of the input bytes.
    """

    pixels: Pixels
    width: int
    height: int
    exif_orientation: int
    sha256: str


def labelled(ref: ImageRef, image: DecodedImage, masks: MaskSet | None) -> ImageRecord:
    """The row of an image that was labelled, perhaps with nothing."""
    height, width = image.pixels.shape[:2]
    return ImageRecord(
        image_id=ref.image_id,
        file_name=ref.file_name,
        status="ok" if masks else "empty",
        width=image.width,
        height=image.height,
        exif_orientation=image.exif_orientation,
        resized_width=width,
        resized_height=height,
        sha256=image.sha256,
        masks=masks,
    )


def resized_shape(height: int, width: int, config: DecodeConfig) -> tuple[int, int]:
    """(height, width) in pixels after resizing.

    The shorter side becomes `short_side`, unless the longer one would pass `long_side` (the usual 800/1333 rule
    of detectors); sides are rounded to the nearest multiple of `align`, and to one at least.
    """
    if config.keep_ratio:
        scale = min(config.short_side / min(height, width), config.long_side / max(height, width))
        sides = height * scale, width * scale
    else:
        sides = config.short_side, config.long_side
    rows, columns = (max(1, int(side / config.align + 0.5)) * config.align for side in sides)
    return rows, columns


def upright_shape(header: ImageHeader, config: DecodeConfig) -> tuple[int, int]:
    """(height, width) in pixels of the image that is worked on: as stored, or turned with `exif = "apply"`."""
    sideways = config.exif == "apply" and header.exif_orientation >= 5
    return (header.width, header.height) if sideways else (header.height, header.width)


def check_image(data: bytes, ref: ImageRef, config: DecodeConfig) -> ImageHeader:
    """The header, if the image may be decoded; costs microseconds, and of a progressive JPEG a search of its bytes.

    Raises `BadImage`: `empty_file`, `too_many_bytes`, `unsupported_format`, `decode_failed` (no valid header),
    `too_many_pixels`, `size_mismatch` with the size the input list declares, `too_small`, `too_many_scans`.
    """
    if not data:
        raise BadImage("empty_file", "0 bytes")
    if len(data) > config.max_bytes:
        raise BadImage("too_many_bytes", f"{len(data)} bytes, above decode.max_bytes = {config.max_bytes}")
    header = parse_header(data)
    height, width = upright_shape(header, config)
    if height * width > config.max_pixels:
        raise BadImage("too_many_pixels", f"{width} x {height}, above decode.max_pixels = {config.max_pixels}")
    if ref.width not in (None, width) or ref.height not in (None, height):
        raise BadImage("size_mismatch", f"{width} x {height}, but the list says {ref.width} x {ref.height}")
    if min(height, width) < config.min_side:
        raise BadImage("too_small", f"{width} x {height}, below decode.min_side = {config.min_side}")
    if header.format == "jpeg" and count_scans(data) > MAX_SCANS:
        raise BadImage("too_many_scans", f"more than {MAX_SCANS} scans, each over all pixels: save it again")
    return header


def decode_image(data: bytes, ref: ImageRef, config: DecodeConfig, out: Pixels | None = None) -> DecodedImage:
    """The resized RGB image of a file's bytes.

    With `out`, uint8 [h, w, 3] of the resized size and C-contiguous (a slot of a batch), the pixels are written
    there without a further copy. Shrinking averages areas; enlarging is bilinear.

    Raises `BadImage` as `check_image`, and `decode_failed` when the pixels are broken.
    """
    header = check_image(data, ref, config)
    with named_if_overdue(ref.file_name):
        image = _decode(data, header)
    if config.exif == "apply":
        image = _upright(image, header.exif_orientation)
    height, width = image.shape[:2]
    return DecodedImage(
        pixels=_resize(image, resized_shape(height, width, config), out),
        width=width,
        height=height,
        exif_orientation=header.exif_orientation,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _decode(data: bytes, header: ImageHeader) -> Pixels:
    plain = without_remarks(data) if header.format == "png" else data
    try:
        image = cv2.imdecode(np.frombuffer(plain, np.uint8), _FLAGS)
    except cv2.error:
        image = None
    if image is not None and header.format == "tiff":  # OpenCV turns these whatever the flags say: turn them back
        image = _upright(image, {6: 8, 8: 6}.get(header.exif_orientation, header.exif_orientation))  # type: ignore[arg-type]
    # A file whose decoder sees another size than its header parser was built to get past the limits.
    if image is None or image.shape != (header.height, header.width, 3):
        raise BadImage("decode_failed", f"broken {header.format} data")
    return image  # type: ignore[return-value]  # uint8, as no flag asks for any depth


def _upright(image: Pixels, orientation: int) -> Pixels:
    """The image as it was held: undoes EXIF orientation 1..8."""
    if orientation >= 5:
        image = cv2.transpose(image)  # type: ignore[assignment]
    # After the transpose, what is left is a mirror: of columns, of both, of rows.
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)  # type: ignore[return-value]


def _resize(image: Pixels, shape: tuple[int, int], out: Pixels | None) -> Pixels:
    assert out is None or (out.shape == (*shape, 3) and out.flags.c_contiguous and out.dtype == np.uint8)
    if image.shape[:2] == shape:
        if out is None:
            return image
        np.copyto(out, image)
        return out
    shrinks = shape[0] <= image.shape[0] and shape[1] <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, shape[::-1], dst=out, interpolation=method)  # type: ignore[return-value]
