"""The whole job with a trained detector, also on the photographs of another data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saliency_prompt.pipeline.parent import Parent, open_parent
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.producers.contract import PixelBatch, Prior
from saliency_prompt.stages.producers.detector import DetectorProducer, FoundInBatch
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset
from toy_detector import write_run

SMALL = ("plan.shard_size=4", "detect.batch_size=3", "detect.precision=fp32")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def masks(dataset: Dataset) -> list[dict[str, Any]]:
    return [row for commit in dataset.commits() for row in dataset.read_shard(commit).masks.to_pylist()]


def test_a_data_set_of_format_2_whose_card_names_its_maker(world, photos: Path, run: Path) -> None:
    dataset, report = world.run(photos, "out", *SMALL, model=run)
    assert report.shards_left == 0
    assert verify(dataset).problems == []
    card = dataset.card
    assert (card.producer, card.format_version, card.parent) == ("detector", 2, None)
    assert card.mask_columns == {"label": "int32", "maskness": "float32"}
    assert card.config["decode"]["short_side"] == 96  # that of training
    found = masks(dataset)
    assert len(found) >= 10
    assert {row["source"] for row in found} == {"detector"}
    assert {row["label"] for row in found} <= {0, 1, 2}
    assert all(0.5 < row["maskness"] <= 1 for row in found)
    for commit in dataset.commits():
        tables = dataset.read_shard(commit)
        assert tables.vectors["query"].shape == (tables.masks.num_rows, 2)


def test_batches_and_interruptions_do_not_change_a_byte(world, photos: Path, run: Path) -> None:
    def root(out: str, *settings: str) -> str:
        seal = world.run(photos, out, *SMALL, *settings, model=run)[1].seal
        assert seal is not None
        return seal.root_hash

    whole = root("whole")
    assert root("single", "detect.batch_size=1") == whole
    dataset = Dataset.open(str(world.base / "whole"))
    dataset.unseal()
    dataset.store.delete([info.key for info in dataset.store.list("commits") if "000001" in info.key])
    assert root("whole") == whole
    assert world.shards == [1]


def test_another_model_configuration_or_producer_is_refused(world, photos: Path, run: Path, tmp_path: Path) -> None:
    world.run(photos, "out", *SMALL, model=run)
    with pytest.raises(UserError, match="weights_sha256 was"):
        world.run(photos, "out", *SMALL, model=write_run(tmp_path / "other", level=0.4))
    with pytest.raises(UserError, match=r"detect.min_score was 0.3, now 0.5.*--out"):
        world.run(photos, "out", *SMALL, "detect.min_score=0.5", model=run)
    with pytest.raises(UserError, match="holds labels of detector, not of saliency"):
        world.run(photos, "out")
    with pytest.raises(UserError, match="no toy"):
        world.run(photos, "another", *SMALL, model=tmp_path / "nowhere")
    world.run(photos, "out", *SMALL, model=write_run(tmp_path / "moved"))  # the same bytes elsewhere
    assert world.shards == []


def test_quarantined_images_are_tried_again(world, photos: Path, run: Path) -> None:
    victim = sorted(photos.iterdir())[5]
    whole = world.run(photos, "whole", *SMALL, model=run)[1].seal
    good = victim.read_bytes()
    victim.write_bytes(b"nothing")
    _, report = world.run(photos, "out", *SMALL, model=run)
    assert report.seal is not None
    assert report.seal.counts.quarantined == 1
    victim.write_bytes(good)
    _, report = world.run(photos, "out", *SMALL, model=run, retry=True)
    assert world.shards == [1]
    assert report.seal.root_hash == whole.root_hash


class Watch:
    """What a producer is shown of the parent, by photograph."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, Prior | None] = {}
        forward = DetectorProducer.forward

        def watched(producer: DetectorProducer, batch: PixelBatch) -> FoundInBatch:
            for image, prior in zip(batch.images, batch.priors, strict=True):
                self.seen[image.sha256] = prior
            return forward(producer, batch)

        monkeypatch.setattr(DetectorProducer, "forward", watched)


def test_a_child_labels_the_photographs_of_its_parent_shard_by_shard(
    world, photos: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = sorted(photos.iterdir())[2]
    good = broken.read_bytes()
    broken.write_bytes(b"nothing")
    parent, sealed = world.run(photos, "parent", "plan.shard_size=3")
    broken.write_bytes(good)
    watch = Watch(monkeypatch)
    child, report = world.run(None, "child", *SMALL, model=run, parent="parent")
    assert report.shards_left == 0
    assert verify(child).problems == []
    assert child.card.parent == sealed.seal.root_hash
    assert child.card.n_shards == parent.card.n_shards == 4
    for shard in range(4):
        assert child.read_inputs(shard) == parent.read_inputs(shard)
    assert len(watch.seen) == 10
    rows = {r["sha256"]: r for commit in parent.commits() for r in parent.read_shard(commit).images.to_pylist()}
    for digest, prior in watch.seen.items():
        if digest not in rows:
            assert prior is None  # it was set aside then
            continue
        assert prior is not None
        assert len(prior) == rows[digest]["n_masks"] == len(prior.score) == len(prior.bbox)
        assert set(prior.columns) == {"score_raw", "seed_scale", "seed_y", "seed_x"}
    before = [row["counts"] for row in masks(parent)]
    assert sorted(c for prior in watch.seen.values() if prior for c in prior.counts) == sorted(before)

    world.run(None, "child", *SMALL, model=run, parent="parent")
    assert world.shards == []
    grandchild, report = world.run(None, "grandchild", model=run, parent="child")
    assert grandchild.card.parent == child.sealed.root_hash
    assert verify(grandchild).problems == []


def test_a_parent_must_be_complete_and_the_same(world, photos: Path, run: Path) -> None:
    parent, _ = world.run(photos, "parent")
    world.run(None, "child", *SMALL, model=run, parent="parent")
    with pytest.raises(UserError, match="without --from"):
        world.run(photos, "child", *SMALL, "plan.shard_size=4", model=run)
    world.run(photos, "other", "nms.max_masks=3")
    with pytest.raises(UserError, match="name the same data set"):
        world.run(None, "child", *SMALL, model=run, parent="other")
    parent.unseal()
    with pytest.raises(UserError, match="is not complete"):
        open_parent(parent.url)
    parent.seal()
    with pytest.raises(UserError, match="no longer what"):
        open_parent(parent.url, "0" * 64)


def test_photographs_may_have_moved_since(world, photos: Path, run: Path) -> None:
    world.run(photos, "parent")
    here = world.run(None, "here", *SMALL, model=run, parent="parent")[1].seal
    moved = photos.rename(photos.with_name("moved"))
    there = world.run(moved, "there", *SMALL, model=run, parent="parent")[1].seal
    assert there.root_hash == here.root_hash
    with pytest.raises(UserError, match="must be the folder"):
        world.run(moved / "*.jpg", "again", *SMALL, model=run, parent="parent")


def test_priors_are_those_of_the_images_asked_for(world, photos: Path) -> None:
    parent, seal = world.run(photos, "parent")
    opened = Parent(parent, seal.seal.root_hash)
    refs = parent.read_inputs(1)
    both = opened.priors(1, [refs[3], refs[0]])
    rows = {r["image_id"]: r for r in parent.read_shard(parent.read_commit(1, 0)).images.to_pylist()}
    assert [len(p) for p in both if p] == [rows[refs[3].image_id]["n_masks"], rows[refs[0].image_id]["n_masks"]]
    assert both[0] is not None
    assert both[0].bbox.dtype == np.float32


def test_wide_masks_are_left_out_by_their_width_not_their_right_side(world, photos: Path, run: Path) -> None:
    """A box is a corner and a size: read as two corners, as FreeSOLO's program reads it, others would go."""
    whole = masks(world.run(photos, "whole", *SMALL, model=run)[0])
    narrow = masks(world.run(photos, "narrow", *SMALL, "detect.max_width=0.3", model=run)[0])

    def names(rows: list[dict[str, Any]]) -> set[tuple[int, bytes]]:
        return {(row["image_id"], row["counts"]) for row in rows}

    wanted = names([row for row in whole if row["bbox"][2] < 0.3 * row["width"]])
    misread = names([row for row in whole if row["bbox"][2] - row["bbox"][0] < 0.3 * row["width"]])
    assert names(narrow) == wanted
    assert wanted not in (misread, names(whole))
