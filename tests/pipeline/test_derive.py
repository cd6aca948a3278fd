"""Data sets made from others: complete, verified, with lineage, and the masks and vectors of the ones before."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from makers import Maker
from saliency_prompt.pipeline.derive import MaskFilter, common_source, dedup, filter_masks, merge, sample, split
from saliency_prompt.pipeline.rewrite import Origin
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.check import verify
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import open_store


@pytest.fixture
def origin(tmp_path: Path) -> str:
    url = str(tmp_path / "origin")
    Maker().complete(open_store(url), 25, 10, saliency=True)
    return url


def rows(url: str):
    """image id -> (status, [(counts, score, area, seed vector, first bytes of its map)])"""
    found = {}
    for ref, record in Origin.open(url).records():
        masks = record.masks
        listed = (
            []
            if masks is None
            else [
                (
                    masks.counts[i],
                    float(masks.score[i]),
                    int(masks.area[i]),
                    masks.vectors["seed"][i].tobytes(),
                    masks.saliency[i].tobytes(),
                    masks.extra["seed_y"][i],
                )
                for i in range(len(masks))
            ]
        )
        found[ref.image_id] = (record.status, listed)
    return found


def check(made, operation: str, url: str) -> Dataset:
    dataset, seal = made
    assert verify(Dataset.open(dataset.url)).problems == []
    card = dataset.card
    assert (card.derivation.operation, card.parent) == (operation, Dataset.open(url).sealed.root_hash)
    assert card.derivation.parents[0] == card.parent
    assert dataset.sealed == seal
    return dataset


def test_filter_leaves_out_masks_and_nothing_else(origin: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    check(filter_masks(origin, out, MaskFilter(min_score=0.7, min_area=20, top=2)), "filter", origin)
    before, after = rows(origin), rows(out)
    assert before.keys() == after.keys()
    changed = 0
    for image_id, (status, masks) in before.items():
        kept = [mask for mask in masks if mask[1] >= 0.7 and mask[2] >= 20][:2]
        assert after[image_id][1] == kept
        assert after[image_id][0] == ("quarantined" if status == "quarantined" else "ok" if kept else "empty")
        changed += len(kept) < len(masks)
    assert changed
    full = check(
        filter_masks(origin, str(tmp_path / "full"), MaskFilter(drop_empty=True, drop_quarantined=True)),
        "filter",
        origin,
    )
    assert {status for status, _ in rows(full.url).values()} == {"ok"}
    with pytest.raises(UserError, match="no labels"):
        filter_masks(origin, str(tmp_path / "x"), MaskFilter(labels=(1,)))
    with pytest.raises(UserError, match="no image"):
        filter_masks(origin, str(tmp_path / "y"), MaskFilter(min_score=2, drop_empty=True, drop_quarantined=True))


def test_the_same_again_is_done_and_another_is_refused(origin: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    first = filter_masks(origin, out, MaskFilter(top=1))[1]
    assert filter_masks(origin, out, MaskFilter(top=1))[1] == first
    with pytest.raises(UserError, match="another data set"):
        filter_masks(origin, out, MaskFilter(top=2))


def test_one_that_was_begun_is_finished(origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saliency_prompt.pipeline import rewrite

    whole = filter_masks(origin, str(tmp_path / "whole"), MaskFilter(top=1))[1]
    commit, left = rewrite.commit_shard, [1]

    def dying(*args, **options):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return commit(*args, **options)

    monkeypatch.setattr(rewrite, "commit_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        filter_masks(origin, str(tmp_path / "out"), MaskFilter(top=1))
    monkeypatch.setattr(rewrite, "commit_shard", commit)
    assert Dataset.open(str(tmp_path / "out")).sealed is None
    assert filter_masks(origin, str(tmp_path / "out"), MaskFilter(top=1))[1].root_hash == whole.root_hash


def test_sample_and_split(origin: str, tmp_path: Path) -> None:
    check(sample(origin, str(tmp_path / "s"), images=7), "sample", origin)
    assert len(rows(str(tmp_path / "s"))) == 7
    sample(origin, str(tmp_path / "t"), images=7, seed=1)
    assert rows(str(tmp_path / "s")).keys() != rows(str(tmp_path / "t")).keys()
    outs = [str(tmp_path / name) for name in ("train", "val")]
    for made in split(origin, outs, (0.8, 0.2)):
        check(made, "split", origin)
    train, val = (rows(out) for out in outs)
    assert (len(train), len(val)) == (20, 5)
    assert train | val == rows(origin)


def test_merge_is_the_way_back(origin: str, tmp_path: Path) -> None:
    outs = [str(tmp_path / name) for name in ("a", "b")]
    split(origin, outs, (0.6, 0.4))
    dataset, _ = merge(outs, str(tmp_path / "m"))
    assert verify(dataset).problems == []
    assert dataset.card.derivation.parents == tuple(Dataset.open(out).sealed.root_hash for out in outs)
    assert rows(str(tmp_path / "m")) == rows(origin)
    with pytest.raises(UserError, match="same image id"):
        merge([origin, outs[0]], str(tmp_path / "n"))


def test_places_in_common() -> None:
    assert common_source(["/a/b", "/a/b"]) == "/a/b"
    assert common_source(["/a/b/x", "/a/b/y"]) == "/a/b"
    assert common_source(["s3://bucket/x", "s3://bucket/y"]) == "s3://bucket"
    for apart in (["/a", "/b"], ["s3://a/x", "s3://b/x"], ["/a", "s3://a"]):
        with pytest.raises(UserError, match="in common"):
            common_source(apart)


def test_dedup_keeps_the_first_of_the_same_bytes_or_vectors(tmp_path: Path) -> None:
    maker = Maker()
    dataset = maker.dataset(open_store(str(tmp_path / "d")), 20, 20)
    records = maker.records(dataset.read_inputs(0))
    good = [i for i, record in enumerate(records) if record.masks]
    first, bytes_again, vectors_again = good[0], good[1], good[-1]
    records[bytes_again] = replace(records[bytes_again], sha256=records[first].sha256)
    nearly = {name: (array * np.float16(0.5)) for name, array in records[first].masks.vectors.items()}
    copy = replace(records[first].masks, vectors=nearly)
    records[vectors_again] = replace(
        records[first],
        image_id=records[vectors_again].image_id,
        file_name=records[vectors_again].file_name,
        sha256="f" * 64,
        masks=copy,
    )
    maker.commit(dataset, 0, records=records)
    dataset.seal()
    check(dedup(str(tmp_path / "d"), str(tmp_path / "out")), "dedup", str(tmp_path / "d"))
    gone = {records[i].image_id for i in (bytes_again, vectors_again)}
    assert rows_ids(tmp_path / "out") == {record.image_id for record in records} - gone


def rows_ids(path: Path) -> set[int]:
    return {ref.image_id for ref, _ in Origin.open(str(path)).records()}


def test_what_is_not_complete_is_refused(tmp_path: Path) -> None:
    Maker().dataset(open_store(str(tmp_path / "d")))
    with pytest.raises(UserError, match="not complete"):
        sample(str(tmp_path / "d"), str(tmp_path / "o"), images=1)
