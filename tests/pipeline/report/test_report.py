"""Reports of real data sets: numbers, bad input, drift, and limits."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from corpus import S3Photos, write_photos
from saliency_prompt.cli.app import app
from saliency_prompt.pipeline.export.coco import export_coco
from saliency_prompt.pipeline.report import collect as collect_module
from saliency_prompt.pipeline.report.collect import collect
from saliency_prompt.pipeline.report.drift import drift, read_report
from saliency_prompt.pipeline.report.page import write_report
from saliency_prompt.pipeline.report.plots import FEW, overview_svgs
from saliency_prompt.pipeline.report.sample import sample_images
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.dataset import Dataset

SOFT = "encode.saliency=true"
HOSTILE = "<img src=x onerror=alert(1)> & 'quotes\".jpg"


def scripts(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "data").glob("*.js")))


def items(folder: Path) -> dict[str, Any]:
    """The details of all images, by id."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "data").glob("images-*.js")):
        text = path.read_text()
        found |= json.loads(text[text.index(",") + 1 : text.rindex(")")])
    return found


def test_numbers_are_those_of_the_tables(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, run = world.run(photos, "data", SOFT)
    report = write_report(dataset, str(tmp_path / "report"))
    data = read_report(str(tmp_path / "report/report.json"))
    assert data == report.data
    tables = [dataset.read_shard(commit) for commit in dataset.commits()]
    scores = np.concatenate([table.masks["score"].to_numpy() for table in tables])
    assert data.totals == dataset.counts()
    assert data.histograms["score"].total == len(scores) == data.totals.masks > 0
    assert data.numbers["score"] == pytest.approx(scores.mean(), rel=1e-5)
    per_image = np.concatenate([table.images["n_masks"].to_numpy() for table in tables])
    assert data.histograms["masks_per_image"].counts[: per_image.max() + 1] == tuple(np.bincount(per_image))
    assert np.sum(data.heat) == pytest.approx(1)
    assert data.provenance.root_hash == run.seal.root_hash
    assert {"read", "device", "encode"} <= data.steps.keys()
    assert len(data.shifts) == dataset.card.n_shards
    detail = items(tmp_path / "report")
    assert sum(len(item["masks"]) for item in detail.values()) == data.totals.masks
    assert all(mask["soft"].startswith("data:image/png") for item in detail.values() for mask in item["masks"])
    assert len(list((tmp_path / "report/images").glob("*.jpg"))) == 10


def test_nothing_in_the_page_comes_from_elsewhere(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data")
    write_report(dataset, str(tmp_path / "report"))
    page = (tmp_path / "report/index.html").read_text()
    for text in (page, (tmp_path / "report/report.js").read_text(), (tmp_path / "report/report.css").read_text()):
        for line in text.replace("http://www.w3.org/", "").splitlines():
            assert "http" not in line, line


def test_names_are_text_and_never_html(world: Any, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "photo_0000.jpg", photos / HOSTILE)
    (photos / "<script>alert(2)</script>.jpg".replace("/", "_")).write_bytes(b"nothing")
    dataset, _ = world.run(photos, "data")
    write_report(dataset, str(tmp_path / "report"))
    page = (tmp_path / "report/index.html").read_text()
    assert "&lt;script&gt;alert(2)" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<" not in scripts(tmp_path / "report")


def test_a_data_set_that_is_not_sealed_gives_a_partial_report(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data")
    commit = next(iter(dataset.commits()))
    dataset.unseal()
    dataset.store.delete(["commits/000/000000.json"])
    report = write_report(Dataset.open(dataset.url), str(tmp_path / "report"))
    assert report.data.shards_committed == dataset.card.n_shards - 1
    assert report.data.totals.images == dataset.card.n_images - commit.counts.images
    assert "is not complete" in (tmp_path / "report/index.html").read_text()


def test_damage_costs_the_damaged_part(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data")
    first, second = list(dataset.commits())[:2]
    dataset.store.delete([f"shards/000/000000/{first.attempt}/masks.parquet"])
    dataset.store.put("commits/000/000001.json", b"{")
    report = write_report(dataset, str(tmp_path / "report"))
    assert len(report.data.damaged) == 2
    assert report.data.shards_read == dataset.card.n_shards - 2
    assert "2 damaged parts" in (tmp_path / "report/index.html").read_text()
    assert second.shard_id == 1


def test_photographs_that_moved_or_changed_are_placeholders(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data")
    (photos / "photo_0001.jpg").unlink()
    shutil.copy(photos / "photo_0003.jpg", photos / "photo_0004.jpg")
    report = write_report(dataset, str(tmp_path / "report"))
    assert {name for name, _ in report.missing} == {"photo_0001.jpg", "photo_0004.jpg"}
    page = (tmp_path / "report/index.html").read_text()
    assert "photo_0001.jpg: the photograph cannot be read any more" in page
    assert "photo_0004.jpg: the photograph was changed since" in page


def test_without_any_mask(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data", "filters.min_score=1.0")
    report = write_report(dataset, str(tmp_path / "report"))
    assert report.data.totals.masks == 0
    assert report.data.numbers["score"] is None


def test_the_gallery_comes_first_and_few_values_are_not_drawn(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data", "plan.shard_size=100", "nms.max_masks=1")
    page = Path(write_report(dataset, str(tmp_path / "report")).page).read_text()
    places = [page.index(f'<section id="{name}"') for name in ("gallery", "overview", "provenance")]
    assert places == sorted(places)
    data = collect(dataset)
    drawn = overview_svgs(data)
    few = [one.title for one in data.histograms.values() if one.total < FEW]
    enough = [one.title for one in data.histograms.values() if one.total >= FEW]
    assert few
    assert set(enough) <= set(drawn)
    assert not {*few, "Throughput", "Workers"} & set(drawn)  # there is one shard


def test_a_comparison_with_itself_finds_no_change_and_with_another_some(
    world: Any, photos: Path, tmp_path: Path
) -> None:
    dataset, _ = world.run(photos, "data")
    other, _ = world.run(photos, "other", "threshold.tau=0.7", "plan.shard_size=3")
    write_report(dataset, str(tmp_path / "same"), other=dataset)
    write_report(dataset, str(tmp_path / "report"), other=other)
    same, changed = items(tmp_path / "same"), items(tmp_path / "report")
    assert all(item["change"]["changed"] == 0 for item in same.values())
    assert any(item["change"]["changed"] > 0.01 for item in changed.values())
    masks = [len(item["other"]) for item in changed.values()]
    assert sum(masks) == other.counts().masks


def test_ground_truth_equal_to_the_masks_is_found_wholly(world: Any, photos: Path, tmp_path: Path) -> None:
    dataset, _ = world.run(photos, "data")
    export_coco(dataset, str(tmp_path / "gt.json"))
    report = write_report(dataset, str(tmp_path / "report"), gt=tmp_path / "gt.json")
    assert report.data.accuracy is not None
    truth = [one for item in items(tmp_path / "report").values() for one in item["truth"]]
    assert len(truth) == dataset.counts().masks
    assert all(one["iou"] == 1 for one in truth)


def test_drift_is_found_where_it_is(world: Any, photos: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    write_photos(many, 40)
    dataset, _ = world.run(many, "data")
    other, _ = world.run(many, "other", "threshold.tau=0.8")
    golden = collect(dataset)
    assert not any(one.moved for one in drift(golden, golden))
    assert any(one.moved for one in drift(collect(other), golden))

    runner = CliRunner()
    arguments = [dataset.url, "--out", str(tmp_path / "golden")]
    assert runner.invoke(app, ["report", *arguments]).exit_code == 0
    check = ["--out", str(tmp_path / "now"), "--golden", str(tmp_path / "golden/report.json")]
    same = runner.invoke(app, ["report", dataset.url, *check])
    assert same.exit_code == 0
    assert "too few values for a bound of 0.1" in same.stderr
    assert "too few" not in runner.invoke(app, ["report", dataset.url, *check, "--bound", "0.9"]).stderr
    moved = runner.invoke(app, ["report", other.url, *check])
    assert moved.exit_code == 1
    assert "MOVED Masks per image" in moved.output


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_what_is_no_report_is_said(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(UserError, match=r"report\.json"):
        read_report(str(tmp_path / "report.json"))


def test_a_report_goes_into_a_bucket(world: Any, photos: Path, s3_photos: S3Photos) -> None:
    dataset, _ = world.run(photos, "data")
    report = write_report(dataset, f"{s3_photos.url}/report")
    assert report.page == f"{s3_photos.url}/report/index.html"
    names = [entry["Key"] for entry in s3_photos.client.list_objects_v2(Bucket=s3_photos.name)["Contents"]]
    assert {"report/index.html", "report/report.js", "report/data/index.js", "report/images/00000.jpg"} <= set(names)


def test_generate_writes_one(photos: Path, tmp_path: Path) -> None:
    small = [f"--set={one}" for one in ("decode.short_side=96", "decode.long_side=192")]
    command = ["generate", str(photos), "--out", str(tmp_path / "data"), "--weights", "lab-color", "--report", *small]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "data-report/index.html").is_file()


def test_samples_are_drawn_by_the_seed_and_never_twice(world: Any, photos: Path) -> None:
    dataset, _ = world.run(photos, "data")
    draws = [[one.row["image_id"] for one in sample_images(dataset, 5, seed)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(set(draw)) == 5 for draw in draws)
    assert len(sample_images(dataset, 500)) == dataset.card.n_images


def test_limits_hold_and_are_said(world: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_module, "READ_SHARDS", 2)
    dataset, _ = world.run(photos, "data", "plan.shard_size=2")
    report = write_report(dataset, str(tmp_path / "report"), sample=3)
    assert report.data.shards_read == 2
    assert report.data.images_read == 4
    assert report.data.totals.images == 10
    assert report.sampled == 3
    assert "4 images in 2 of 5 shards" in (tmp_path / "report/index.html").read_text()
