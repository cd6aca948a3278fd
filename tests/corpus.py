"""Photographs made by code: scenes with known masks, and one file for every way in which an input can be bad."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

Pixels = npt.NDArray[np.uint8]


def scene(seed: int, height: int = 120, width: int = 160, objects: int = 3) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """A textured background with a few plain ellipses and boxes: uint8 RGB [h, w, 3] and bool masks [n, h, w].

    Later objects cover earlier ones; every mask holds at least one pixel.
    """
    rng = np.random.default_rng((seed, height, width))
    coarse = rng.integers(60, 120, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    labels = np.zeros((height, width), np.uint8)
    for label in range(1, objects + 1):
        center = (int(width * label / (objects + 1)), int(height * rng.uniform(0.35, 0.75)))
        half = (max(2, int(width * rng.uniform(0.06, 0.12))), max(2, int(height * rng.uniform(0.1, 0.2))))
        color = [int(value) for value in rng.permutation([235, int(rng.integers(0, 256)), 15])]
        for canvas, value in ((image, color), (labels, label)):
            if label % 2:
                cv2.ellipse(canvas, center, half, 0, 0, 360, value, -1)
            else:
                low = (center[0] - half[0], center[1] - half[1])
                cv2.rectangle(canvas, low, (center[0] + half[0], center[1] + half[1]), value, -1)
    noise = rng.integers(-6, 7, image.shape)
    image = np.clip(image.astype(np.int64) + noise, 0, 255).astype(np.uint8)
    masks = np.stack([labels == label for label in range(1, objects + 1)])
    assert masks.any(axis=(1, 2)).all()
    return image, masks


def encode(image: Pixels, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """An RGB image as file bytes, after conversion to a Pillow mode."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    (picture if mode == "RGB" else picture.convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    """An EXIF block that holds an orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def png_16_bit(image: Pixels) -> bytes:
    """A PNG of 16 bits per channel whose upper bytes are the image."""
    wide = image[..., ::-1].astype(np.uint16) * 257
    return cv2.imencode(".png", wide)[1].tobytes()


def png_that_claims(width: int, height: int) -> bytes:
    """A tiny PNG file whose header promises a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write_photos(folder: Path, count: int, *, height: int = 120, width: int = 160) -> list[Path]:
    """Scenes 0..count-1 as JPEG files in a folder; every third one is upright, so that two shapes occur."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        h, w = (width, height) if i % 3 == 2 else (height, width)
        path = folder / f"photo_{i:04d}.jpg"
        path.write_bytes(encode(scene(i, h, w)[0], quality=92))
        paths.append(path)
    return paths


def write_scenes(folder: Path, count: int, *, height: int = 96, width: int = 128) -> Path:
    """Scenes 0..count-1 and `gt.json` beside their folder: ellipses are category 3, boxes category 7."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(count):
        pixels, masks = scene(i, height, width)
        (folder / f"scene_{i:03d}.png").write_bytes(encode(pixels, "PNG"))
        images.append({"id": 100 + i, "file_name": f"scene_{i:03d}.png", "height": height, "width": width})
        for j, mask in enumerate(masks, start=1):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            bbox = coco_mask.toBbox(rle).tolist()
            area = float(coco_mask.area(rle))
            rle["counts"] = rle["counts"].decode()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + i,
                    "category_id": 3 if j % 2 else 7,
                    "segmentation": rle,
                    "bbox": bbox,
                    "area": area,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 3, "name": "ellipse"}, {"id": 7, "name": "box"}]
    path = folder.parent / "gt.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@dataclass(frozen=True)
class BadCorpus:
    """`folder` with good and bad files, `coco` a json that lists them and more, and what must become of each.

    The dicts go from file name to quarantine reason, None where the image must decode. `duplicate_ids` is a json
    that planning must refuse.
    """

    folder: Path
    in_folder: dict[str, str | None]
    coco: Path
    in_coco: dict[str, str | None]
    duplicate_ids: Path


@dataclass(frozen=True)
class S3Photos:
    """A bucket on a real S3 API: its URL and name, and a boto3 client to prepare it with."""

    url: str
    name: str
    client: Any

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)


def write_bad_corpus(base: Path) -> BadCorpus:
    """Every row of bad input that a file, a name or a list entry can cause, made below `base`."""
    folder = base / "bad"
    folder.mkdir(parents=True)
    in_folder: dict[str, str | None] = {}
    for name, (reason, make) in _FILES.items():
        (folder / name).write_bytes(make())
        in_folder[name] = reason

    with (folder / "heavy.jpg").open("wb") as file:
        file.truncate(200_000_001)  # sparse: takes no room
    in_folder["heavy.jpg"] = "too_many_bytes"
    (folder / "missing.jpg").symlink_to("gone.jpg")
    in_folder["missing.jpg"] = "unreadable"
    outside = base / "outside.jpg"
    outside.write_bytes(_good())
    (folder / "link_out.jpg").symlink_to(outside)
    in_folder["link_out.jpg"] = None  # whoever can write links into a folder can as well write files
    (folder / "link_in.jpg").symlink_to("good.jpg")
    in_folder["link_in.jpg"] = None
    (folder / "circle").symlink_to(folder)
    (folder / "notes.txt").write_text("no photograph")

    in_coco = dict(in_folder) | {"link_out.jpg": "path_escape"}
    images: list[dict[str, Any]] = [{"id": i, "file_name": name} for i, name in enumerate(in_coco)]
    images[0] |= {"width": 96, "height": 64}  # as good.jpg is
    for name in ("../outside.jpg", str(outside), "circle/../../outside.jpg", "not\0a name.jpg"):
        images.append({"id": len(images), "file_name": name})
        in_coco[name] = "path_escape"
    (folder / "wrong_size.jpg").write_bytes(_good(7))
    in_folder["wrong_size.jpg"] = None
    images.append({"id": len(images), "file_name": "wrong_size.jpg", "width": 64, "height": 96})
    in_coco["wrong_size.jpg"] = "size_mismatch"
    coco = base / "images.json"
    coco.write_text(json.dumps({"images": images}))
    duplicate_ids = base / "duplicate_ids.json"
    duplicate_ids.write_text(json.dumps({"images": [{"id": 1, "file_name": n} for n in ("good.jpg", "grey.jpg")]}))
    return BadCorpus(folder, in_folder, coco, in_coco, duplicate_ids)


def _good(seed: int = 0) -> bytes:
    return encode(scene(seed, 64, 96)[0])


def _flipped() -> bytes:
    data = bytearray(_good(1))
    data[len(data) // 2] ^= 0x10
    return bytes(data)


def _cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def _solid(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), (200, 50, 20), np.uint8)


_FILES: dict[str, tuple[str | None, Callable[[], bytes]]] = {
    "good.jpg": (None, _good),
    "GOOD_TOO.JPEG": (None, lambda: _good(2)),
    "progressive.jpg": (None, lambda: encode(scene(3, 64, 96)[0], progressive=True)),
    "good.png": (None, lambda: encode(scene(4, 64, 96)[0], "PNG")),
    "good.webp": (None, lambda: encode(scene(5, 64, 96)[0], "WEBP")),
    "png_named.jpg": (None, lambda: encode(scene(6, 64, 96)[0], "PNG")),
    "grey.jpg": (None, lambda: encode(scene(0, 64, 96)[0], mode="L")),
    "cmyk.jpg": (None, lambda: encode(scene(0, 64, 96)[0], mode="CMYK")),
    "palette.png": (None, lambda: encode(scene(0, 64, 96)[0], "PNG", mode="P")),
    "sixteen_bit.png": (None, lambda: png_16_bit(scene(0, 64, 96)[0])),
    "alpha.png": (None, lambda: encode(scene(0, 64, 96)[0], "PNG", mode="RGBA")),
    "rotated.jpg": (None, lambda: encode(scene(0, 64, 96)[0], exif=exif(6))),
    "constant.png": (None, lambda: encode(_solid(64, 96), "PNG")),
    "flipped_byte.jpg": (None, _flipped),
    "trailing.jpg": (None, lambda: _good() + b"behind the end" * 20),
    "cut_50.jpg": ("decode_failed", lambda: _cut(_good(), 0.5)),
    "cut_90.jpg": ("decode_failed", lambda: _cut(_good(), 0.9)),
    "cut_99.jpg": ("decode_failed", lambda: _cut(_good(), 0.999)),
    "cut_progressive.jpg": ("decode_failed", lambda: _cut(encode(scene(3, 64, 96)[0], progressive=True), 0.9)),
    "cut_header.jpg": ("decode_failed", lambda: _good()[:40]),
    "cut.png": ("decode_failed", lambda: _cut(encode(scene(4, 64, 96)[0], "PNG"), 0.9)),
    "cut.webp": ("decode_failed", lambda: _cut(encode(scene(5, 64, 96)[0], "WEBP"), 0.9)),
    "empty.jpg": ("empty_file", lambda: b""),
    "gif.jpg": ("unsupported_format", lambda: encode(_solid(64, 96), "GIF")),
    "tiff.jpg": (None, lambda: encode(scene(8, 64, 96)[0], "TIFF")),
    "rotated.tif": (None, lambda: encode(scene(8, 64, 96)[0], "TIFF", exif=exif(6))),
    "bmp.png": (None, lambda: encode(scene(8, 64, 96)[0], "BMP")),
    "good.bmp": (None, lambda: encode(scene(9, 64, 96)[0], "BMP")),
    "cut.tif": ("decode_failed", lambda: _cut(encode(scene(8, 64, 96)[0], "TIFF", compression="tiff_lzw"), 0.9)),
    "cut.bmp": ("decode_failed", lambda: _cut(encode(scene(8, 64, 96)[0], "BMP"), 0.9)),
    "text.png": ("unsupported_format", lambda: b"<html>404 Not Found</html>"),
    "huge.png": ("too_many_pixels", lambda: png_that_claims(20_000, 20_000)),
    "larger_than_opencv.png": ("too_many_pixels", lambda: png_that_claims(60_000, 60_000)),
    "one_pixel.png": ("too_small", lambda: encode(_solid(1, 1), "PNG")),
    "one_row.jpg": ("too_small", lambda: encode(_solid(1, 300), "JPEG")),
}


def write_video(path: Path, count: int) -> Path:
    """Frames of 64 x 48 that get lighter by 6 levels each, at 25 a second; `.avi` is MJPEG, `.mp4` MPEG-4."""
    kind = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), kind, 25, (64, 48))
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((48, 64, 3), 6 * number, np.uint8))
    writer.release()
    return path
