"""Data sets that were made to do harm: digests as they should be, contents as nobody wrote them."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers import Photographed
from saliency_prompt import PseudoLabelDataset
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.manifest import FileEntry, ShardCommit
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.coverage import Coverage
from saliency_prompt.stages.instances.samples import SampleError
from saliency_prompt.store.check import VerifyReport, verify
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import open_store
from saliency_prompt.store.shard import content_hash, file_entries

from .conftest import READERS, Labelled

Files = dict[str, bytes]


def forge(old: Labelled, change: Callable[[Files], None]) -> None:
    """Change the files of shard 0 and commit and seal them as a writer would."""
    path = old.file("commits/*/000000.json")
    commit = ShardCommit.model_validate_json(path.read_bytes())
    folder = old.file(f"shards/*/*/{commit.attempt}")
    files = {name: (folder / name).read_bytes() for name in commit.files}
    change(files)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    entries: dict[str, FileEntry] = file_entries(files)
    forged = commit.model_copy(update={"files": entries, "content_hash": content_hash(entries)})
    path.write_bytes(forged.to_json())
    (old.path / "sealed.json").unlink()
    Dataset.open(old.url).seal()


def set_column(name: str, value: Any, file: str = "masks.parquet") -> Callable[[Files], None]:
    def change(files: Files) -> None:
        table = pq.read_table(io.BytesIO(files[file]))
        values = table[name].to_pylist()
        values[0] = value
        field = table.schema.field(name)
        sink = io.BytesIO()
        pq.write_table(table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type)), sink)
        files[file] = sink.getvalue()

    return change


def set_zarr(array: str, **changes: Any) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        key = f"prompts.zarr/{array}/zarr.json"
        files[key] = json.dumps({**json.loads(files[key]), **changes}).encode()

    return change


def second_description(files: Files) -> None:
    """Consolidated metadata, which zarr believes rather than that of the array."""
    about = json.loads(files["prompts.zarr/seed/zarr.json"])
    huge = {**about, "shape": [10**9, 2048]}
    inner = {"kind": "inline", "must_understand": False, "metadata": {"seed": huge, "box_mean": huge}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}, "consolidated_metadata": inner}
    files["prompts.zarr/zarr.json"] = json.dumps(group).encode()


def no_rows(files: Files) -> None:
    table = pq.read_table(io.BytesIO(files["masks.parquet"]))
    sink = io.BytesIO()
    pq.write_table(table.slice(0, 0), sink)
    files["masks.parquet"] = sink.getvalue()


def no_column(files: Files) -> None:
    table = pq.read_table(io.BytesIO(files["masks.parquet"]))
    sink = io.BytesIO()
    pq.write_table(table.drop_columns(["area"]), sink)
    files["masks.parquet"] = sink.getvalue()


GRID = {"name": "regular", "configuration": {"chunk_shape": [10**9, 2048]}}
HOSTILE: dict[str, Callable[[Files], None]] = {
    "an empty RLE": set_column("counts", b""),
    "an RLE of other pixels": set_column("counts", b"T1"),
    "an RLE without end": set_column("counts", b"ooooooooo"),
    "sides of 2^31": set_column("height", 2**31 - 1),
    "a negative side": set_column("width", -1),
    "an image of 2^31": set_column("width", 2**31 - 1, "images.parquet"),
    "a box of NaN": set_column("bbox", [float("nan")] * 4),
    "a score of infinity": set_column("score", float("inf")),
    "masks elsewhere": set_column("first_mask", 10**12, "images.parquet"),
    "masks beyond": set_column("n_masks", 2**31 - 1, "images.parquet"),
    "another image": set_column("image_id", 12, "images.parquet"),
    "an unknown status": set_column("status", "fine", "images.parquet"),
    "no rows": no_rows,
    "no column": no_column,
    "no parquet": lambda files: files.update({"masks.parquet": b"PAR1" * 100}),
    "a vector array of terabytes": set_zarr("seed", shape=[10**9, 2048]),
    "a chunk of terabytes": set_zarr("seed", shape=[10**9, 2048], chunk_grid=GRID),
    "an unknown codec": set_zarr("seed", codecs=[{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]),
    "no codecs": set_zarr("seed", codecs=[]),
    "another kind of number": set_zarr("seed", data_type="float64"),
    "shapes that are none": set_zarr("seed", shape=["x", None]),
    "a deep description": lambda files: files.update({"prompts.zarr/seed/zarr.json": b"[" * 50_000}),
    "no description": lambda files: files.update({"prompts.zarr/seed/zarr.json": b"{}"}),
    "no chunk": lambda files: files.update({"prompts.zarr/seed/c/0/0": b""}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_shard_costs_one_sentence(old: Labelled, tmp_path: Path, name: str) -> None:
    forge(old, HOSTILE[name])
    found = READERS["verify"](old.url, tmp_path)
    assert isinstance(found, VerifyReport)
    assert found.problems, name
    for reader in ("train", "show", "export", "report"):
        try:
            READERS[reader](old.url, tmp_path)
        except UserError as error:
            assert "shard 0" in str(error)  # noqa: PT017  (not every reader reads what is wrong)
    with pytest.raises(UserError, match="shard 0"):
        READERS["train"](old.url, tmp_path)


def test_a_group_that_describes_its_arrays_again_is_not_believed(old: Labelled) -> None:
    expected = old.train()
    forge(old, second_description)
    assert old.train() == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"n_shards": 10**12},
        {"n_images": 10**18},
        {"shard_size": 2**31},
        {"n_images": 0},
        {"plan": "../../../../etc"},
        {"config": {"decode": {"max_pixels": 10**18}}},
        {"config": []},
        {"config": {}},
        {"config": {"features": 3, "decode": None, "prompts": 7}},
        {"mask_columns": {"score": "int8"}},
        {"mask_columns": {"x": "object"}},
        {"mask_columns": {"depth": "int8"}},
        {"producer": "../x"},
        {"format_version": 2},
        {"format_version": True},
        {"source": ""},
    ],
)
def test_a_hostile_card_costs_one_sentence(old: Labelled, tmp_path: Path, changes: dict[str, Any]) -> None:
    old.edit("dataset.json", **changes)
    for reader in ("train", "show", "export", "report"):
        try:
            READERS[reader](old.url, tmp_path)
        except UserError:
            continue
        # The report is written whatever is wrong, and names it.
        assert changes.keys() <= {"source", "config", "format_version"} or reader == "report"
    with suppress(UserError):
        assert verify(Dataset.open(old.url)).problems or changes.keys() <= {"source", "format_version"}


def test_a_seed_at_a_scale_that_there_is_not_is_one_sentence(old: Labelled, tmp_path: Path) -> None:
    forge(old, set_column("seed_scale", 99))
    for reader in ("show", "report"):
        with pytest.raises(UserError, match="seed at scale 99"):
            READERS[reader](old.url, tmp_path)


@pytest.fixture
def address() -> Iterator[tuple[str, list[str]]]:
    """A web server, and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_is_fetched_from_where_the_source_does_not_reach(
    old: Labelled, tmp_path: Path, address: tuple[str, list[str]]
) -> None:
    from .conftest import move_plan

    url, asked = address
    source = (old.path / "dataset.json").read_text()
    move_plan(old.path, Path("http:/") / url.removeprefix("http://"))
    path = old.file("plan/*/inputs-00000.parquet")
    table = pq.read_table(path)
    uris = [f"{url}/{name}" for name in table["file_name"].to_pylist()]
    groups = pq.ParquetFile(path).num_row_groups
    place = table.schema.get_field_index("uri")
    table = table.set_column(place, table.schema.field(place), pa.array(uris))
    assert groups == 2
    pq.write_table(table, path, row_group_size=2)
    (old.path / "dataset.json").write_text(source)
    for reader in ("report", "show"):
        READERS[reader](old.url, tmp_path)
    assert asked == []
    page = (tmp_path / "report" / "data" / "index.js").read_text()
    assert "source covers" in page


def test_what_sources_cover(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg\nhttp://there/b.jpg\n")

    def covers(source: str, uri: str) -> bool:
        return Coverage(source).covers([ImageRef(1, "x", uri)])[0]

    for source, uri, expected in (
        ("/photos", "/photos/a.jpg", True),
        ("/photos", "", True),
        ("/photos", "/photos/../etc/a.jpg", False),
        ("/photos", "/photographs/a.jpg", False),
        ("/photos", "http://there/a.jpg", False),
        ("/photos/one.jpg", "/photos/one.jpg", True),
        ("/photos/one.jpg", "/photos/two.jpg", False),
        ("/photos/*/a?.jpg", "/photos/x/ab.jpg", True),
        ("/photos/*/a?.jpg", "/other/x/ab.jpg", False),
        ("s3://bucket/some", "s3://bucket/some/a.jpg", True),
        ("s3://bucket/some", "s3://bucket/someone/a.jpg", False),
        ("s3://bucket/some", "s3://other/some/a.jpg", False),
        ("/l.json with images in s3://bucket/x", "s3://bucket/x/a.jpg", True),
        ("/l.json with images in /photos", "/else/a.jpg", False),
        (str(listed), f"{tmp_path}/a.jpg", True),
        (str(listed), "http://there/b.jpg", True),
        (str(listed), "http://there/c.jpg", False),
        (str(tmp_path / "gone.txt"), "http://there/b.jpg", False),
    ):
        assert covers(source, uri) is expected, (source, uri)


def test_journals_that_are_none_are_passed_over(old: Labelled) -> None:
    from saliency_prompt.pipeline.report.collect import collect
    from saliency_prompt.pipeline.runs import runs

    lines = [
        b"{",
        b"[" * 100_000,
        b"5",
        b'{"event": "shard_committed"}',
        b'{"event": "shard_committed", "time": 1, "run": "x", "shard": [], "images": 1}',
        b'{"event": [], "time": 1, "run": "x"}',
        b'{"event": "running", "time": NaN, "run": "x"}',
        b'{"event": "run_ended", "time": 2, "run": "x"}',
    ]
    dataset = Dataset.of(open_store(old.url))
    dataset.store.put("runs/x.00000.jsonl", b"\n".join(lines))
    assert runs(dataset) == []
    assert collect(dataset).damaged == ()
    assert verify(dataset).problems == []


def test_the_training_reader_opens_nothing_beyond_the_source(tmp_path: Path) -> None:
    maker = Photographed(tmp_path / "secret")
    dataset = maker.dataset(open_store(str(tmp_path / "labels")), 4, 5, source=str(tmp_path / "photos"))
    maker.commit(dataset, 0)
    dataset.seal()
    data = PseudoLabelDataset(dataset.url)
    with pytest.raises(SampleError, match="does not cover"):
        data[0]
    there = PseudoLabelDataset(dataset.url, images=str(tmp_path / "secret"))  # whose user says so
    assert there[0][1]["file_name"] == data.file_name(0)


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "a/../../secret.png"])
def test_names_do_not_lead_out_of_a_given_folder(tmp_path: Path, name: str) -> None:
    class Outside(Photographed):
        def refs(self, count: int) -> list[ImageRef]:
            return [replace(ref, file_name=name) for ref in super().refs(count)]

    maker = Outside(tmp_path / "photos")
    dataset = maker.dataset(open_store(str(tmp_path / "labels")), 1, 5, source=str(tmp_path / "photos"))
    maker.commit(dataset, 0)
    dataset.seal()
    with pytest.raises(SampleError, match="leads out"):
        PseudoLabelDataset(dataset.url, images=str(tmp_path / "photos"))[0]
