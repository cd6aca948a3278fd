"""What the files of a shard hold, read in bounds: nothing is decoded or allocated that the format has no room for.

Row i of every array belongs to row i of the masks. Whatever is wrong is a ContentError, or an error of the parser.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .damage import ContentError

if TYPE_CHECKING:  # slow to import, and many commands read no arrays
    import zarr

MAX_ROWS = 1 << 24  # of a table: 256 masks for each image of the largest shard
MAX_BYTES = 1 << 31  # of a table or an array in memory
MAX_METADATA = 1 << 16  # bytes of a zarr.json
DTYPES = {"float16": 2, "uint8": 1, "int32": 4, "int64": 8}  # of arrays, with bytes of a value


def read_table(data: bytes, schema: pa.Schema, rows: int) -> pa.Table:
    """A whole parquet file, read by this thread alone; page checksums are compared where there are some.

    Arrow's own threads may still hold bytes of Python when the interpreter ends, which then aborts.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    about = file.metadata
    if about.num_rows != rows:
        raise ContentError(f"has {about.num_rows} rows where the commit counts {rows}")
    if rows > MAX_ROWS or sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)) > MAX_BYTES:
        raise ContentError("is larger than the format allows")
    if not file.schema_arrow.equals(schema):
        raise ContentError("has other columns than the format")
    return file.read(use_threads=False)


def read_zarr(files: Mapping[str, bytes], group: str) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a zarr group whose files were read; sizes were checked, so that no file is silently absent."""
    prefix = f"{group}/"
    held = {name.removeprefix(prefix): data for name, data in files.items() if name.startswith(prefix)}
    if not held:
        return {}
    import zarr
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    names = [name.removesuffix("/zarr.json") for name in held if name.endswith("/zarr.json")]
    for name in names:
        _check_array(name, held)
    # A group of our own making: a stored one could describe its arrays again, in other words.
    held["zarr.json"] = b'{"attributes": {}, "zarr_format": 3, "node_type": "group"}'
    make = default_buffer_prototype().buffer.from_bytes
    buffers: dict[str, Any] = {name: make(data) for name, data in held.items()}
    root = zarr.open_group(MemoryStore(buffers), mode="r", zarr_format=3, use_consolidated=False)
    return {name: _read_array(root, name) for name in names}


def check_array(array: npt.NDArray[Any], rows: int) -> Iterator[str]:
    """What is wrong with the vectors of so many masks."""
    if array.dtype != np.float16 or array.ndim != 2 or len(array) != rows or not np.isfinite(array).all():
        yield "does not hold a finite vector for every mask"


def check_maps(saliency: Mapping[str, npt.NDArray[Any]], rows: int) -> Iterator[str]:
    """What is wrong with the soft maps of so many masks."""
    if saliency.keys() != {"maps", "offsets", "shapes"}:
        yield "does not hold maps, offsets and shapes"
        return
    maps, offsets, shapes = (saliency[name] for name in ("maps", "offsets", "shapes"))
    types = tuple(str(array.dtype) for array in (maps, offsets, shapes))
    if types != ("uint8", "int64", "int32") or shapes.shape != (rows, 2) or maps.ndim != 1 or (shapes < 1).any():
        yield "does not hold a map for every mask"
        return
    ends = np.append(0, np.cumsum(shapes.prod(1, dtype=np.int64)))
    if not np.array_equal(offsets, ends) or len(maps) != ends[-1]:
        yield "its offsets and shapes do not fit its maps or masks"


def _read_array(root: "zarr.Group", name: str) -> npt.NDArray[Any]:
    import zarr

    array = root[name]
    if not isinstance(array, zarr.Array):
        raise ContentError(f"has something else than an array as {name}")
    return np.asarray(array[...])


def _check_array(name: str, held: Mapping[str, bytes]) -> None:
    """Raise ContentError unless the array is as the format writes it: whole, in one zarr shard that is there."""
    text = held[f"{name}/zarr.json"]
    if len(text) > MAX_METADATA:
        raise ContentError(f"has too long a description of {name}")
    try:
        about = json.loads(text)
        kind, shape = about["data_type"], about["shape"]
        outer = about["chunk_grid"]["configuration"]["chunk_shape"]
        (sharding,) = about["codecs"]
        inner = sharding["configuration"]["chunk_shape"]
        inside = [codec["name"] for codec in sharding["configuration"]["codecs"]]
        index = [codec["name"] for codec in sharding["configuration"]["index_codecs"]]
        known = (about["zarr_format"], about["node_type"], sharding["name"], about["chunk_grid"]["name"])
        simple = not about["storage_transformers"] and about["chunk_key_encoding"]["name"] == "default"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ContentError(f"has a broken description of {name}") from error
    numbers = [value for sides in (shape, outer, inner) if isinstance(sides, list) for value in sides]
    ints = len(numbers) == 3 * len(shape) and all(type(value) is int and value >= 0 for value in numbers)
    if (
        known != (3, "array", "sharding_indexed", "regular")
        or not simple
        or inside not in (["bytes", "zstd"], ["bytes", "zstd", "crc32c"])
        or index != ["bytes", "crc32c"]
        or kind not in DTYPES
        or len(shape) not in (1, 2)
        or not ints
        or min(*outer, *inner) < 1
        or shape[1:] != outer[1:]
        or shape[1:] != inner[1:]
        or outer[0] != -(-shape[0] // inner[0]) * inner[0]
    ):
        raise ContentError(f"has a description of {name} that the format does not know")
    chunk = held.get("/".join([name, "c", *("0" for _ in shape)]))
    # The index of a zarr shard has two numbers of 8 bytes for every chunk, and a checksum.
    if chunk is None or len(chunk) < 16 * (outer[0] // inner[0]) + 4:
        raise ContentError(f"has no values of {name}")
    if np.prod(outer, dtype=np.float64) * DTYPES[kind] > MAX_BYTES:
        raise ContentError(f"has a larger {name} than the format allows")
