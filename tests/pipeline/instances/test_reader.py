"""The reader against the tables it reads, its filters, and everything that may be wrong with what it reads."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from torchvision.transforms import v2

from corpus import S3Photos
from saliency_prompt import PseudoLabelDataset, ShuffledStream
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.instances.samples import PAD_COLOR, SampleError, collate
from saliency_prompt.store.dataset import Dataset


def test_items_are_what_is_stored(labelled: Any) -> None:
    data = PseudoLabelDataset(labelled.dataset, vectors=("seed", "box_mean"))
    source = Dataset.open(labelled.dataset)
    rows = {}
    for commit in source.commits():
        tables = source.read_shard(commit)
        rows |= {row["image_id"]: (row, tables) for row in tables.images.to_pylist()}
    assert len(data) == len(rows) == 12
    for i in range(len(data)):
        image, target = data[i]
        row, tables = rows[target["image_id"]]
        mine = slice(row["first_mask"], row["first_mask"] + row["n_masks"])
        assert image.shape == (3, row["height"], row["width"])
        assert target["stored"] == (row["height"], row["width"])
        counts = tables.masks["counts"].to_pylist()[mine]
        for mask, one in zip(target["masks"], counts, strict=True):
            wanted = coco_mask.decode({"size": [row["height"], row["width"]], "counts": one})
            assert np.array_equal(mask.numpy(), wanted)
        xywh = np.array(tables.masks["bbox"].to_pylist()[mine])
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        np.testing.assert_array_equal(torch.as_tensor(target["boxes"]).numpy(), boxes)
        for name in ("seed", "box_mean"):
            np.testing.assert_array_equal(target["vectors"][name].numpy(), tables.vectors[name][mine])
        assert not target["labels"].any()


def test_masks_shrink_with_the_image(labelled: Any) -> None:
    whole, small = PseudoLabelDataset(labelled.dataset), PseudoLabelDataset(labelled.dataset, size=(48, 64))
    for (image, target), (_, full) in zip((small[i] for i in range(4)), (whole[i] for i in range(4)), strict=True):
        assert image.shape == (3, 48, 64)
        assert target["masks"].shape[1:] == (48, 64)
        shares = torch.as_tensor(target["masks"]).float().mean((1, 2)) - torch.as_tensor(full["masks"]).float().mean(
            (1, 2)
        )
        assert shares.abs().max() < 0.02


def test_filters(labelled: Any) -> None:
    everything = PseudoLabelDataset(labelled.dataset)
    scores = torch.cat([everything[i][1]["scores"] for i in range(len(everything))])
    cut = float(scores.median())
    data = PseudoLabelDataset(labelled.dataset, min_score=cut)
    kept = torch.cat([data[i][1]["scores"] for i in range(len(data))])
    assert len(kept) == int((scores >= cut).sum())
    assert len(PseudoLabelDataset(labelled.dataset, max_images=3)) == 3
    one = PseudoLabelDataset(labelled.dataset, max_masks=1)
    assert all(len(one[i][1]["labels"]) == 1 for i in range(len(one)))
    with pytest.raises(UserError, match="loosen"):
        PseudoLabelDataset(labelled.dataset, min_score=1.0, min_area=0.99)


def test_transforms_move_image_and_masks_together(labelled: Any) -> None:
    plain = PseudoLabelDataset(labelled.dataset, vectors=("seed",))
    flipped = PseudoLabelDataset(labelled.dataset, transforms=v2.RandomHorizontalFlip(1.0), vectors=("seed",))
    image, target = plain[0]
    mirrored, moved = flipped[0]
    assert torch.equal(mirrored, image.flip(2))
    assert torch.equal(torch.as_tensor(moved["masks"]), torch.as_tensor(target["masks"]).flip(2))
    width = image.shape[2]
    before, after = torch.as_tensor(target["boxes"]), torch.as_tensor(moved["boxes"])
    assert torch.equal(after[:, [0, 2]], width - before[:, [2, 0]])
    assert torch.equal(moved["vectors"]["seed"], target["vectors"]["seed"])


def test_photographs_elsewhere_gone_changed_or_resized(labelled: Any, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(labelled.photos, moved)
    data = PseudoLabelDataset(labelled.dataset, images=str(moved), check=True)
    name = data.file_name(0)
    assert torch.equal(data[0][0], PseudoLabelDataset(labelled.dataset)[0][0])
    shutil.copy(moved / data.file_name(1), moved / name)
    with pytest.raises(SampleError, match="was changed"):
        data[0]
    (moved / name).unlink()
    with pytest.raises(SampleError, match="restore it"):
        data[0]
    from corpus import encode, scene

    (moved / name).write_bytes(encode(scene(0, 64, 64)[0], "PNG"))
    with pytest.raises(SampleError, match="64 x 64"):
        data[0]


def test_what_cannot_be_read_is_refused(labelled: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(labelled.dataset, copy)
    with pytest.raises(UserError, match="nowhere is no folder"):
        PseudoLabelDataset(labelled.dataset, images=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no other vectors"):
        PseudoLabelDataset(str(copy), vectors=("other",))
    masks = next(copy.glob("shards/**/masks.parquet"))
    data = bytearray(masks.read_bytes())
    data[len(data) // 2] ^= 1
    masks.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        PseudoLabelDataset(str(copy), verify=True)
    Dataset.open(str(copy)).unseal()
    with pytest.raises(UserError, match="not sealed"):
        PseudoLabelDataset(str(copy))
    with pytest.raises(UserError, match="not a data set"):
        PseudoLabelDataset(str(tmp_path))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_is_the_same_for_any_number_of_processes(labelled: Any, workers: int) -> None:
    data = PseudoLabelDataset(labelled.dataset, size=(48, 64))

    def ids(rank: int, world: int, start: int = 0) -> list[int]:
        stream = ShuffledStream(data, seed=3, rank=rank, world=world, start=start)
        context = "fork" if workers else None
        loader = DataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context)
        return [target["image_id"] for _, target in loader]

    alone = ids(0, 1)
    assert len(set(alone)) == 12
    first, second = ids(0, 2), ids(1, 2)
    assert [one for pair in zip(first, second, strict=True) for one in pair] == alone
    assert ids(0, 1, start=7) == alone[7:]


def test_a_bucket_in_a_forked_process_is_refused_rather_than_waited_for(labelled: Any, s3_photos: S3Photos) -> None:
    for path in sorted(Path(labelled.dataset).rglob("*")):
        if path.is_file():
            s3_photos.put(f"data/{path.relative_to(labelled.dataset).as_posix()}", path.read_bytes())
    data = PseudoLabelDataset(f"{s3_photos.url}/data")
    assert len(data[0][1]["labels"]) > 0
    other = PseudoLabelDataset(f"{s3_photos.url}/data")
    loader = DataLoader(other, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(UserError, match="spawn"):
        next(iter(loader))


def test_photographs_in_a_bucket(labelled: Any, s3_photos: S3Photos) -> None:
    for path in labelled.photos.iterdir():
        s3_photos.put(f"moved/{path.name}", path.read_bytes())
    here = PseudoLabelDataset(labelled.dataset)
    there = PseudoLabelDataset(labelled.dataset, f"{s3_photos.url}/moved/", check=True)
    for place in range(len(here)):
        assert torch.equal(here[place][0], there[place][0])


def test_a_stream_goes_on_where_its_state_says(labelled: Any) -> None:
    data = PseudoLabelDataset(labelled.dataset, size=(48, 64))
    stream = ShuffledStream(data, seed=3)
    walk = iter(stream)
    begun = [next(walk)[1]["image_id"] for _ in range(5)]
    state = stream.state_dict()
    again = ShuffledStream(data, seed=3)
    again.load_state_dict(state)
    rest = [target["image_id"] for _, target in again]
    assert begun + rest == [target["image_id"] for _, target in ShuffledStream(data, seed=3)]
    following = [target["image_id"] for _, target in again]
    assert sorted(following) == sorted(begun + rest) != begun + rest


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_resumes_in_mid_pass(labelled: Any, workers: int) -> None:
    data = PseudoLabelDataset(labelled.dataset, size=(48, 64))

    def load() -> tuple[ShuffledStream, StatefulDataLoader[Any]]:
        stream = ShuffledStream(data, seed=3)
        context = "fork" if workers else None
        loader = StatefulDataLoader(stream, batch_size=None, num_workers=workers, multiprocessing_context=context)
        return stream, loader

    def ids(samples: Any) -> list[int]:
        return [target["image_id"] for _, target in samples]

    stream, loader = load()
    whole = ids(loader)
    _, loader = load()
    walk = iter(loader)
    begun = ids([next(walk) for _ in range(5)])
    state = loader.state_dict()
    del walk
    _, loader = load()
    loader.load_state_dict(state)
    assert begun + ids(loader) == whole
    stream.set_epoch(1)
    second = ids(iter(StatefulDataLoader(stream, batch_size=None)))
    assert sorted(second) == sorted(whole) != second
    assert second != whole


def test_a_stream_goes_on_with_another_number_of_ranks(labelled: Any) -> None:
    data = PseudoLabelDataset(labelled.dataset, size=(48, 64))
    whole = [target["image_id"] for _, target in ShuffledStream(data, seed=3)]
    alone = ShuffledStream(data, seed=3)
    walk = iter(alone)
    for _ in range(5):
        next(walk)
    rest: list[int] = []
    for rank in range(2):
        stream = ShuffledStream(data, seed=3, rank=rank, world=2)
        stream.load_state_dict(alone.state_dict())
        rest += [target["image_id"] for _, target in stream]
    assert sorted(rest) == sorted(whole[5:])


def test_batches_are_padded_at_the_right_and_below(labelled: Any) -> None:
    data = PseudoLabelDataset(labelled.dataset, size=(40, 60))
    batch = collate([data[0], data[1]])
    assert batch.images.shape[2:] == (64, 64)
    assert batch.resized[0] == data[0][0].shape[-2:]
    below = batch.images[0][:, batch.resized[0][0] :]
    assert below.numel()
    assert (below == torch.tensor(PAD_COLOR, dtype=torch.uint8).view(3, 1, 1)).all()
    assert all(mask.shape[1:] == (64, 64) for mask in batch.masks)
