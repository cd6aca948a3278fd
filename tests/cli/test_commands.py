"""Every command as a user types it: its happy path, and its mistakes in one sentence with a non-zero exit."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from commands import complains, run
from corpus import scene, write_photos
from saliency_prompt.cli.demo import demo
from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.store.dataset import Dataset

SMALL = ["--set", "decode.short_side=160", "--set", "decode.long_side=320", "--weights", "lab-color"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "photos"
    folder.mkdir()
    write_photos(folder, 4)
    return folder


@pytest.fixture(scope="module")
def dataset(photos: Path) -> Path:
    out = photos.with_name("dataset")
    assert "root hash" in run("generate", photos, "--out", out, *SMALL).stderr
    return out


def test_help_of_every_command_is_quick_and_needs_no_torch() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from saliency_prompt.cli.app import app\n"
        "for c in ([], ['generate'], ['status'], ['verify'], ['gc'], ['show'], ['export', 'coco'], ['evaluate'],"
        " ['config', 'show'], ['config', 'schema'], ['weights', 'list'], ['weights', 'fetch'], ['demo'],"
        " ['plan'], ['drain'], ['cluster', 'render'], ['cluster', 'check'], ['cluster', 'schema']):\n"
        "    result = CliRunner().invoke(app, [*c, '--help']); assert result.exit_code == 0, c\n"
        "assert not {'torch', 'ray', 'cv2', 'zarr'} & set(sys.modules), sorted(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_status(dataset: Path) -> None:
    shown = run("status", dataset).stdout
    assert "4 of 4" in shown
    state = json.loads(run("status", dataset, "--json").stdout)
    assert state["root_hash"] == json.loads((dataset / "sealed.json").read_text())["root_hash"]
    assert state["counts"]["images"] == 4


def test_watching_a_finished_data_set_ends_at_once(dataset: Path) -> None:
    said = run("status", dataset, "--watch").stdout
    assert "4 images" in said
    assert "root hash" in said


def test_drain_of_a_finished_data_set_has_nothing_to_do(dataset: Path) -> None:
    assert "nothing to drain" in run("drain", dataset).stdout
    assert "no data set" in complains("drain", dataset / "none").lower() or "no folder" in complains(
        "drain", dataset / "none"
    )


def test_plan_tells_time_and_price(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run("plan", photos, "--out", out, *SMALL, "--workers", 2, "--price-per-gpu-hour", 3.2).stdout
    for word in ("4 images in 1 shards", "objects to write", "worker minutes", "on 2 workers, for", "1 workers would"):
        assert word in said
    assert not out.exists()
    found = json.loads(
        run("plan", photos, "--out", out, *SMALL, "--workers", 2, "--seconds-per-image", 9, "--json").stdout
    )
    assert found["run"]["seconds"] == pytest.approx(4 * 9 + 60)
    assert found["run"]["cost"] is None


def test_render_writes_files_and_explains_a_bad_spec(tmp_path: Path) -> None:
    spec = tmp_path / "cluster.yaml"
    spec.write_text(yaml.safe_dump({"image": "a/b:1", "job": {"photos": "s3://a/", "out": "s3://b/c"}}))
    written = run("cluster", "render", "kuberay", "--config", spec, "--out", tmp_path / "out").stdout.split()
    assert {Path(path).name for path in written} >= {"rayjob.yaml", "raycluster.yaml", "Dockerfile"}
    assert "properties" in json.loads(run("cluster", "schema").stdout)
    spec.write_text("image: a/b:1")
    assert "job" in complains("cluster", "render", "kuberay", "--config", spec, "--out", tmp_path / "out")


def test_verify_finds_damage(dataset: Path, tmp_path: Path) -> None:
    assert "no problem" in run("verify", dataset).stdout
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    victim = next(copy.rglob("masks.parquet"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    assert "masks.parquet" in run("verify", copy, code=1).stdout


def test_gc_removes_orphans_alone(dataset: Path) -> None:
    orphan = dataset / "shards" / "000" / "000000" / "deadbeef" / "masks.parquet"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"left by a crash")
    assert "removed 0 files" in run("gc", dataset).stdout  # too young
    assert "would remove 1 files" in run("gc", dataset, "--grace", 0, "--dry-run").stdout
    assert "removed 1 files" in run("gc", dataset, "--grace", 0).stdout
    assert not orphan.exists()
    assert "no problem" in run("verify", dataset).stdout


def test_show_and_export(dataset: Path, tmp_path: Path) -> None:
    drawn = run("show", dataset, "--out", tmp_path / "overlays", "--limit", 2).stdout.split()
    assert len(drawn) == 2
    assert all(Path(path).stat().st_size > 1000 for path in drawn)
    assert "has no image 'nobody.jpg'" in complains("show", dataset, "--out", tmp_path, "--image", "nobody.jpg")
    run("export", "coco", dataset, tmp_path / "a.json")
    coco = COCO(str(tmp_path / "a.json"))
    assert len(coco.imgs) == 4
    assert min(coco.anns) == 1
    for annotation in coco.anns.values():
        assert coco_mask.area(coco.annToRLE(annotation)) == annotation["area"]


def test_evaluate(dataset: Path, photos: Path, tmp_path: Path) -> None:
    opened = Dataset.open(str(dataset))
    rows = [row for commit in opened.commits() for row in opened.read_images(commit).to_pylist()]
    images, annotations = [], []
    for index, row in enumerate(rows):
        number = int("".join(filter(str.isdigit, row["file_name"])))
        images.append({"id": 10 + index, **{key: row[key] for key in ("file_name", "width", "height")}})
        for mask in scene(number, row["height"], row["width"])[1]:
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            box = coco_mask.toBbox(rle).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 + index,
                    "category_id": 7,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "area": int(mask.sum()),
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    gt = tmp_path / "gt.json"
    gt.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "x"}]}))
    run("evaluate", dataset, "--gt", gt, "--json", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    for kind in ("segm", "bbox"):
        assert {"AP", "AP50", "AR100", "ARl"} <= scores[kind].keys()
        assert 0 <= scores[kind]["AR100"] <= 100
    assert scores["segm"]["AR100"] > 0
    assert "is not JSON" in complains("evaluate", dataset, "--gt", next(photos.iterdir()))
    assert "annot" in complains("evaluate", dataset, "--gt", tmp_path / "nothing.json")


def test_config() -> None:
    shown = yaml.safe_load(run("config", "show", "--preset", "uplvp", "--set", "nms.max_masks=7").stdout)
    assert shown["nms"]["max_masks"] == 7
    assert shown["filters"]["min_center_y"] == 0.1
    Config.model_validate(shown)
    schema = json.loads(run("config", "schema").stdout)
    for section in schema["$defs"].values():
        for name, field in section["properties"].items():
            assert field.get("description"), f"{name} does not say why it exists"


def test_every_configuration_can_be_shown() -> None:
    from typer.testing import CliRunner

    from saliency_prompt.cli.app import app
    from saliency_prompt.schemas.registry import PRODUCERS
    from saliency_prompt.schemas.training.registry import MODELS

    prompted = [[name, "--pretrain"] for name, spec in MODELS.items() if spec.pretraining is not None]
    for what in [*([name] for name in [*PRODUCERS, *MODELS, "unilseg", "densecl"]), *prompted]:
        shown = CliRunner().invoke(app, ["config", "show", *what])
        schema = CliRunner().invoke(app, ["config", "schema", *what])
        assert (shown.exit_code, schema.exit_code) == (0, 0), what
        assert set(yaml.safe_load(shown.stdout)) == set(json.loads(schema.stdout)["properties"])
    assert "one of saliency" in complains("config", "show", "nobody")
    assert "has no queries" in complains("config", "show", "solov2", "--pretrain")


def test_a_config_file_round_trips(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(run("config", "show", "--preset", "paper-literal").stdout)
    assert run("config", "show", "--config", file).stdout == file.read_text()
    file.write_text("nms:\n  max_mask: 5\n")
    assert "'nms.max_masks'" in complains("generate", photos, "--out", tmp_path / "o", "--config", file)
    file.write_text("nms: [\n")
    assert "not valid YAML" in complains("config", "show", "--config", file)


def test_weights(tmp_path: Path) -> None:
    listed = run("weights", "list").stdout
    for name in ("densecl-r50-in1k-200ep", "densecl-r101-in1k-200ep", "lab-color", "random"):
        assert name in listed
    cache = {"SALIENCY_PROMPT_CACHE": str(tmp_path)}
    assert "missing" in run("weights", "verify", "densecl-r50-in1k-200ep", code=1, env=cache).stdout
    assert "not a registered file" in complains("weights", "fetch", "lab-color")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "decode.shrt_side=5"], "did you mean 'decode.short_side'"),
        (["--set", "decode.short_side=5"], "must be 32 or more"),
        (["--preset", "nobody"], "saliency-prompt, freesolo, paper-literal, uplvp"),
        (["--device", "cuda:99"], "--device cpu"),
        (["--device", "toaster"], "toaster"),
        (["--weights", "lab-colour"], "lab-color"),
        (["--weights", "lab-color", "--set", "features.arch=resnet50"], "features.arch"),
    ],
)
def test_mistakes_in_options(photos: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    assert says in complains("generate", photos, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_mistakes_in_places(photos: Path, dataset: Path, tmp_path: Path) -> None:
    assert "photos" in complains("generate", str(photos)[:-1], "--out", tmp_path / "out", *SMALL)
    below_a_file = next(photos.iterdir()) / "out"
    assert "not a folder" in complains("generate", photos, "--out", below_a_file, *SMALL)
    assert "is not a data set" in complains("status", photos)
    assert "no folder" in complains("verify", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "image" in complains("generate", tmp_path / "empty", "--out", tmp_path / "out", *SMALL)
    assert "max_masks was 20, now 3" in complains(
        "generate", photos, "--out", dataset, *SMALL, "--set", "nms.max_masks=3"
    )


def test_mistakes_in_checkpoints(photos: Path, tmp_path: Path) -> None:
    corrupt = tmp_path / "corrupt.pth"
    corrupt.write_bytes(b"not a checkpoint")
    assert "corrupt.pth" in complains("generate", photos, "--out", tmp_path / "out", "--weights", corrupt)
    assert "missing.pth" in complains(
        "generate", photos, "--out", tmp_path / "out", "--weights", tmp_path / "missing.pth"
    )


def test_without_a_network_a_registered_name_names_the_way_out(photos: Path, tmp_path: Path) -> None:
    offline = {"SALIENCY_PROMPT_CACHE": str(tmp_path / "cache"), "https_proxy": "http://127.0.0.1:9"}
    offline |= {"HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    said = complains("generate", photos, "--out", tmp_path / "out", env=offline)
    assert "--weights FILE" in said


def test_a_dry_run_prints_bytes_and_time(photos: Path, tmp_path: Path) -> None:
    said = run("generate", photos, "--out", tmp_path / "out", *SMALL, "--dry-run").stderr
    assert "4 images in 1 shards" in said
    assert "MB to write" in said
    assert not (tmp_path / "out").exists()


def test_quarantined_images_are_listed_and_the_exit_code_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    write_photos(folder, 2)
    (folder / "empty[1].jpg").write_bytes(b"")
    said = run("generate", folder, "--out", tmp_path / "out", *SMALL, code=3).stderr
    assert "empty[1].jpg: empty_file" in said
    assert "empty[1].jpg: empty_file" in run("status", tmp_path / "out").stdout


def test_demo(tmp_path: Path) -> None:
    said = run("demo", "--out", tmp_path / "demo").stdout
    paths = [line.strip() for line in said.splitlines() if line.strip().endswith(".png")]
    assert len(paths) == 5
    assert all(Path(path).is_file() for path in paths)
    assert "seconds" in said


def test_demo_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_prompt.cli.demo.obtainable", lambda _: False)
    demo(str(tmp_path / "demo"), device="cpu")
    card = Dataset.open(str(tmp_path / "demo" / "dataset")).card
    assert (card.producer, card.config["features"]["weights"]) == ("merge", "lab-color")
    assert len(list((tmp_path / "demo" / "overlays").glob("*.png"))) == 5
