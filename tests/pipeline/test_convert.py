"""Converters on files in the data sets' real formats."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from corpus import encode, scene
from saliency_prompt.cli.app import app
from saliency_prompt.pipeline.convert import convert
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.evaluate import read_annotations
from saliency_prompt.stages.instances.labelled import CocoInstances

TEXT = Path(__file__).resolve().parents[3] / "shared/data/scene_text10"
POLYGON = [10, 10, 20, 8, 30, 8, 40, 10, 50, 12, 60, 14, 70, 16, 70, 26, 60, 24, 50, 22, 40, 20, 30, 18, 20, 18, 10, 20]
XML = """<Annotations><image file="0001.jpg"><box height="18" left="10" top="8" width="60">
<label>TEXT</label><segs>{}</segs><pts x="1" y="2"/></box></image></Annotations>"""


def test_cityscapes(tmp_path: Path) -> None:
    ids = np.zeros((40, 60), np.uint16)
    ids[5:15, 5:20] = 26001  # a car
    ids[20:30, 5:20] = 26002
    ids[5:15, 30:50] = 24  # a group of persons
    ids[32:38] = 7  # road
    ids[0:3, 0:3] = 29005  # caravan: no class with instances
    folder = tmp_path / "gtFine/train/aachen"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "aachen_000000_000019_gtFine_instanceIds.png"), ids)
    assert CliRunner().invoke(app, ["convert", "cityscapes", str(tmp_path), str(tmp_path / "out.json")]).exit_code == 0
    truth = json.loads((tmp_path / "out.json").read_text())
    assert truth["images"] == [
        {"id": 1, "file_name": "aachen/aachen_000000_000019_leftImg8bit.png", "height": 40, "width": 60}
    ]
    found = [(one["id"], one["category_id"], one["iscrowd"], one["area"]) for one in truth["annotations"]]
    assert found == [(1, 24, 1, 200.0), (2, 26, 0, 150.0), (3, 26, 0, 150.0)]
    assert truth["annotations"][1]["bbox"] == [5, 5, 15, 10]
    assert len(truth["categories"]) == 8
    assert len(read_annotations(tmp_path / "out.json")[0]["aachen/aachen_000000_000019_leftImg8bit.png"].masks) == 2


def test_ctw1500_train_and_test(tmp_path: Path) -> None:
    for name in ("0001.jpg", "1001.jpg"):
        (tmp_path / name).write_bytes(encode(scene(1, 40, 90)[0]))
    text = ",".join(map(str, POLYGON))
    (tmp_path / "0001.xml").write_text(XML.format(text))
    (tmp_path / "0001001.txt").write_text(f"{text},####SALE\n{text},####\n")
    assert convert("ctw1500", tmp_path, tmp_path / "out.json") == (2, 3)
    truth = json.loads((tmp_path / "out.json").read_text())
    names = {image["file_name"]: image["id"] for image in truth["images"]}
    assert names.keys() == {"0001.jpg", "1001.jpg"}
    first = next(one for one in truth["annotations"] if one["image_id"] == names["0001.jpg"])
    assert first["segmentation"] == [POLYGON]
    assert first["bbox"] == [10, 8, 60, 18]
    masks = read_annotations(tmp_path / "out.json")[0]["1001.jpg"].masks
    area = cv2.contourArea(np.array(POLYGON, np.float32).reshape(-1, 2))
    assert first["area"] == pytest.approx(area)
    assert len(masks) == 2


@pytest.mark.skipif(not TEXT.is_dir(), reason=f"{TEXT} is not there")
def test_real_street_text_trains_with_what_is_to_be_ignored_left_out(tmp_path: Path) -> None:
    images, annotations = convert("textdet", TEXT, tmp_path / "out.json")
    assert (images, annotations) == (10, 82)
    truth = json.loads((tmp_path / "out.json").read_text())
    assert sum(one["iscrowd"] for one in truth["annotations"]) == 61
    assert all((TEXT / "images" / image["file_name"]).is_file() for image in truth["images"])
    data = CocoInstances(str(TEXT / "images"), str(tmp_path / "out.json"), size=(720, 1280))
    assert sum(len(data[i][1]["labels"]) for i in range(len(data))) == 21
    _, target = data[0]
    for mask, box in zip(target["masks"], target["boxes"], strict=True):
        assert 0 < mask.sum() <= (box[2] - box[0]) * (box[3] - box[1])


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"),
    [
        ("ctw1500", "0001.xml", "<broken", "no XML"),
        ("ctw1500", "0001.xml", XML.format("1,2,3"), "without 28 numbers"),
        ("ctw1500", "0002.xml", XML.format(",".join(map(str, POLYGON))), "no photograph"),
        ("cityscapes", "a_gtFine_instanceIds.png", "nothing", "no picture"),
        ("textdet", "a.json", '{"metainfo": {"dataset_type": "TextDetDataset"}}', "no textdet file"),
        ("textdet", "a.json", "{", "no textdet file"),
        ("cityscapes", "other.txt", "", "holds no annotations"),
        ("imagenet", "x", "", "no converter"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, kind: str, name: str, content: str, said: str) -> None:
    (tmp_path / "0001.jpg").write_bytes(encode(scene(1, 40, 90)[0]))
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        convert(kind, tmp_path, tmp_path / "out.json")


VOC_XML = """<annotation><folder>VOC2007</folder><filename>000005.jpg</filename>
<size><width>500</width><height>375</height><depth>3</depth></size>
<object><name>chair</name><difficult>0</difficult>
<bndbox><xmin>263</xmin><ymin>211</ymin><xmax>324</xmax><ymax>339</ymax></bndbox></object>
<object><name>dog</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></object></annotation>"""


def test_voc_boxes_count_from_one_and_include_their_ends(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "000005.xml").write_text(VOC_XML)
    assert convert("voc", tmp_path, tmp_path / "voc.json") == (1, 2)
    content = json.loads((tmp_path / "voc.json").read_text())
    chair, dog = content["annotations"]
    assert chair["bbox"] == [262, 210, 62, 129]
    assert (chair["category_id"], chair["iscrowd"], chair["id"]) == (9, 0, 1)
    assert dog["bbox"] == [0, 0, 1, 1]
    assert dog["iscrowd"] == 1
    assert len(content["categories"]) == 20
    for bad in (VOC_XML.replace("dog", "unicorn"), VOC_XML.replace("<xmax>324", "<xmax>12"), VOC_XML[:-20]):
        (tmp_path / "Annotations" / "000005.xml").write_text(bad)
        with pytest.raises(UserError, match=r"000005\.xml"):
            convert("voc", tmp_path, tmp_path / "voc.json")
