"""Where results of `predict` get their image ids, and where names in a list start."""

import json
from pathlib import Path

import pytest

from corpus import write_scenes
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.pipeline.training.predict import predict
from saliency_prompt.schemas.errors import UserError
from training_runs import CPU, train

SMALL = ["data.short_side=64", "data.long_side=96", "data.workers=0", "model.queries=8", "trainer.precision=fp32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs, a list of their names elsewhere, annotations of three under large ids, and a run."""
    base = tmp_path_factory.mktemp("predict")
    gt = write_scenes(base / "photos", 4)
    train(base / "run", SMALL, images=base / "photos", gt=gt, control={"max_steps": 1})
    truth = json.loads(gt.read_text())
    names = [image["file_name"] for image in truth["images"]]
    images = [{**image, "id": 7_000 + number} for number, image in enumerate(truth["images"][:3])]
    (base / "other_ids.json").write_text(json.dumps({**truth, "images": images, "annotations": []}))
    (base / "list").mkdir()
    (base / "list" / "names.txt").write_text("\n".join(names))
    return base


def found(place: Path, tmp_path: Path, photos: str, **options: Path | str) -> set[tuple[int, str]]:
    """Ids and names of the images that have results."""
    predict(place / "run", photos, tmp_path / "out.json", CPU, min_score=0.0, **options)
    return {(one["image_id"], one["file_name"]) for one in json.loads((tmp_path / "out.json").read_text())}


def test_ids_are_those_of_the_source(place: Path, tmp_path: Path) -> None:
    refs = list(open_source(str(place / "photos")).refs())
    assert found(place, tmp_path, str(place / "photos")) == {(ref.image_id, ref.file_name) for ref in refs}
    assert len(refs) == 4


def test_ids_of_another_file_are_taken_by_name_and_what_it_lacks_is_left_out(place: Path, tmp_path: Path) -> None:
    other = place / "other_ids.json"
    images = json.loads(other.read_text())["images"]
    got = found(place, tmp_path, str(place / "photos"), ids_of=other)
    assert got == {(image["id"], image["file_name"]) for image in images}
    assert len(got) == 3


def test_names_in_a_list_start_at_the_root(place: Path, tmp_path: Path) -> None:
    names = str(place / "list" / "names.txt")
    other = place / "other_ids.json"
    got = found(place, tmp_path, names, root=str(place / "photos"), ids_of=other)
    assert {image_id for image_id, _ in got} == {7_000, 7_001, 7_002}
    skipped: list[str] = []
    assert predict(place / "run", names, tmp_path / "out.json", CPU, min_score=0.0, skip=skipped.append) == 0
    assert len(skipped) == 4  # nothing is there beside the list


def test_ids_of_other_photographs_and_a_root_for_a_folder_are_refused(place: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.json"
    images = [{"id": 1, "file_name": "nobody.jpg", "width": 9, "height": 9}]
    strange.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}))
    with pytest.raises(UserError, match="give the annotation file of the same images"):
        found(place, tmp_path, str(place / "photos"), ids_of=strange)
    with pytest.raises(UserError, match="leave --root out"):
        found(place, tmp_path, str(place / "photos"), root=str(place))
