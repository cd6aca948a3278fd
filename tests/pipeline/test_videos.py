"""Videos as photographs, from the source to a sealed data set and out of it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from commands import run
from corpus import encode, scene, write_video
from makers import stored
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.store.dataset import Dataset


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos, one that is none, and one that breaks off."""
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    write_video(folder / "a.mp4", 25)
    write_video(folder / "sub" / "b é.avi", 10)
    (folder / "broken.mp4").write_bytes(b"no video" * 50)
    whole = write_video(folder / "c.avi", 30).read_bytes()
    (folder / "c.avi").write_bytes(whole[: len(whole) // 2])
    return folder


def test_frames_have_ids_of_their_time(videos: Path) -> None:
    tens, fives = (list(open_source(str(videos), every=n).refs()) for n in (10, 5))
    names = [ref.file_name for ref in tens]
    assert names[:3] == [f"a.mp4/{400 * i:09d}ms.{10 * i}.bmp" for i in range(3)]
    assert "broken.mp4" in names
    assert names[-1] == "sub/b é.avi/000000000ms.0.bmp"
    assert 1 <= sum(name.startswith("c.avi") for name in names) <= 2  # as far as it goes
    ids = {ref.file_name: ref.image_id for ref in fives}
    assert len(set(ids.values())) == len(fives)
    assert all(ids[ref.file_name] == ref.image_id for ref in tens)
    one = open_source(str(videos / "a.mp4"))
    assert len(list(one.refs())) == 25
    assert one.folder is None


def test_every_nth_photograph_of_a_folder(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.png").touch()
    source = open_source(str(tmp_path), every=3)
    assert [ref.file_name for ref in source.refs()] == ["0.png", "3.png", "6.png"]
    assert source.description == f"{tmp_path} (every 3)"
    (tmp_path / "list.txt").write_text("1.png\n2.png\n3.png\n")
    assert [ref.file_name for ref in open_source(str(tmp_path / "list.txt"), every=2).refs()] == ["1.png", "3.png"]


@pytest.mark.slow
def test_a_data_set_of_videos(videos: Path, tmp_path: Path) -> None:

    writer = cv2.VideoWriter(str(videos / "scene.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for seed in range(6):
        writer.write(cv2.imdecode(np.frombuffer(encode(scene(seed, 120, 160)[0]), np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    settings = ["--set", "decode.short_side=120", "--set", "plan.shard_size=4", "--set", "filters.min_score=0"]
    job = ["generate", videos, "--weights", "lab-color", "--every", 2, "--device", "cpu", *settings]
    run(*job, "--out", tmp_path / "first", code=3)  # broken.mp4 was set aside
    dataset = Dataset.open(str(tmp_path / "first"))
    rows = [row for commit in dataset.commits() for row in dataset.read_images(commit).to_pylist()]
    assert [row["file_name"] for row in rows if row["status"] == "quarantined"] == ["broken.mp4"]
    assert sum(row["n_masks"] for row in rows if "scene.avi" in row["file_name"]) > 0
    # what is lost is computed anew to the same bytes, in the middle of a video
    run(*job, "--out", tmp_path / "second", code=3)
    second = Dataset.open(str(tmp_path / "second"))
    assert second.sealed is not None
    root_hash = second.sealed.root_hash
    assert dataset.sealed is not None
    assert root_hash == dataset.sealed.root_hash
    for path in (tmp_path / "second" / "commits").rglob("000001.json"):
        path.unlink()
    run(*job, "--out", tmp_path / "second", code=3)
    assert second.sealed.root_hash == root_hash
    assert "no problem" in run("verify", tmp_path / "second").stdout
    run("export", "yolo", tmp_path / "first", tmp_path / "yolo")
    written = sorted((tmp_path / "yolo" / "images").rglob("*.bmp"))
    assert len(written) == len(stored(dataset))
    drawn = run("show", tmp_path / "first", "--out", tmp_path / "drawn").stdout
    assert "scene.avi" in drawn
