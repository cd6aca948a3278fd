import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from saliency_prompt.pipeline.export.coco import export_coco
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.manifest import ShardCommit
from saliency_prompt.store.damage import DamageError
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import attempt_prefix
from saliency_prompt.store.objects import ObjectStore


def load(path: Path) -> COCO:
    with redirect_stdout(StringIO()):
        return COCO(str(path))


def test_pycocotools_reads_what_was_stored(make: Any, store: ObjectStore, tmp_path: Path) -> None:
    dataset = make.complete(store)
    target = tmp_path / "new folder" / "pseudo.json"
    report = export_coco(dataset, str(target))
    coco = load(target)
    records = {r.image_id: r for r in make.records(make.refs(25)) if r.status != "quarantined"}
    assert list(coco.imgs) == list(records)
    assert list(coco.anns) == list(range(1, report.annotations + 1))
    assert coco.loadCats(coco.getCatIds())[0]["name"] == "object"
    assert report.images + report.quarantined == 25
    assert report.annotations == sum(len(r.masks) for r in records.values() if r.masks)
    assert any(r.status == "empty" for r in records.values())
    assert coco.dataset["info"]["root_hash"] == dataset.sealed.root_hash
    for image_id, record in records.items():
        image = coco.imgs[image_id]
        assert (image["file_name"], image["height"], image["width"]) == (record.file_name, record.height, record.width)
        found = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(found) == (len(record.masks) if record.masks else 0)
        for i, annotation in enumerate(found):
            decoded = coco.annToMask(annotation)
            assert decoded.shape == (record.height, record.width)
            assert decoded.sum() == annotation["area"]
            assert coco_mask.encode(np.asfortranarray(decoded))["counts"] == record.masks.counts[i]
            ys, xs = np.nonzero(decoded)
            assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert np.float32(annotation["score"]) == record.masks.score[i]
            assert len(str(annotation["score"])) <= 11  # the digits of fp32
            assert (annotation["category_id"], annotation["iscrowd"]) == (1, 0)
    assert [path.name for path in target.parent.iterdir()] == ["pseudo.json"]


def test_an_unfinished_data_set_is_exported_as_far_as_it_goes(
    make: Any, local_store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make.dataset(local_store)
    assert export_coco(dataset, str(tmp_path / "none.json")).images == 0
    assert json.loads((tmp_path / "none.json").read_text())["annotations"] == []
    make.commit(dataset, 2)
    caplog.clear()
    export_coco(dataset, str(tmp_path / "some.json"))
    assert "2 of 3 shards are not computed yet" in caplog.text
    assert load(tmp_path / "some.json").dataset["info"]["root_hash"] is None


def test_a_failed_export_leaves_the_old_file(make: Any, local_store: ObjectStore, tmp_path: Path) -> None:
    dataset = make.complete(local_store)
    target = tmp_path / "out.json"
    target.write_text("old")
    commit = list(dataset.commits())[2]
    local_store.delete([f"{attempt_prefix(2, commit.attempt)}/masks.parquet"])
    with pytest.raises(UserError, match="shard 2"):
        export_coco(dataset, str(target))
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data set", "out.json"]


def test_a_place_that_cannot_be_written_is_explained(make: Any, local_store: ObjectStore, tmp_path: Path) -> None:
    dataset = make.complete(local_store)
    (tmp_path / "file").touch()
    for place, expected in ((tmp_path / "file" / "below.json", "not a folder"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=expected):
            export_coco(dataset, str(place))


def test_a_url_is_no_place_for_annotations(
    make: Any, local_store: ObjectStore, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="local place"):
        export_coco(make.complete(local_store), "s3://bucket/out.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data set"]


def test_what_is_superseded_meanwhile_is_exported_as_it_was(
    make: Any, local_store: ObjectStore, monkeypatch: Any, tmp_path: Path
) -> None:
    dataset = make.complete(local_store)
    root_hash = dataset.sealed.root_hash
    export_coco(dataset, str(tmp_path / "before.json"))
    read_images, left = Dataset.read_images, [1]

    def superseding(self: Dataset, commit: ShardCommit) -> Any:
        if left and left.pop():
            for shard in range(3):
                make.commit(dataset, shard, generation=1, seed=9)
        return read_images(self, commit)

    monkeypatch.setattr(Dataset, "read_images", superseding)
    export_coco(dataset, str(tmp_path / "meanwhile.json"))
    assert (tmp_path / "meanwhile.json").read_bytes() == (tmp_path / "before.json").read_bytes()
    with pytest.raises(DamageError, match="belongs to other data"):
        export_coco(dataset, str(tmp_path / "after.json"))
    dataset.seal()
    export_coco(dataset, str(tmp_path / "after.json"))
    assert load(tmp_path / "before.json").dataset["info"]["root_hash"] == root_hash
    assert load(tmp_path / "after.json").dataset["info"]["root_hash"] == dataset.compute_seal().root_hash != root_hash
