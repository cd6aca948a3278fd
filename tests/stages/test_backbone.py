import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saliency_prompt.models.backbones.registry import build_backbone
from saliency_prompt.pipeline.training.beginning import load_weights
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.training.registry import load_training_config
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.store.weights import WEIGHTS, WeightsEntry

REAL = Path(__file__).resolve().parents[3] / "shared/weights/resnet50_in1k_stride1x1.safetensors"


def assert_frozen(loaded):
    assert not any(m.training for m in loaded.module.modules())
    assert not any(p.requires_grad for p in loaded.module.parameters())


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_file_gives_its_network(tmp_path, arch):
    state = build_backbone(arch).state_dict()
    path = tmp_path / "mine.pth"
    torch.save({"state_dict": {f"module.encoder_q.{k}": v for k, v in state.items()}}, path)
    loaded = load_backbone(str(path))
    assert_frozen(loaded)
    assert (loaded.arch, loaded.weights) == (arch, str(path))
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(v, state[k]) for k, v in loaded.module.state_dict().items())
    with pytest.raises(UserError, match=f"are of {arch}, not resnet101"):
        load_backbone(str(path), arch="resnet101")


def test_the_stride_comes_from_the_caller_or_from_the_register(tmp_path, monkeypatch):
    path = tmp_path / "caffe.safetensors"
    save_file(build_backbone("resnet50").state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = WeightsEntry("caffe", "resnet50", sha256=digest, stride_in_1x1=True, path=path)
    monkeypatch.setitem(WEIGHTS, "caffe", entry)

    def stride(loaded):
        return loaded.module.layer2[0].conv1.stride

    assert stride(load_backbone(str(path))) == (1, 1)
    assert stride(load_backbone(str(path), stride_in_1x1=True)) == (2, 2)
    assert stride(load_backbone("caffe")) == (2, 2)


def test_random_weights_follow_the_seed_and_leave_torchs_generator_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (load_backbone("random", arch="resnet18", seed=s) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert_frozen(first)
    assert first.arch == "resnet18"
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    features = first.module(torch.randn(1, 3, 64, 64))["c5"]
    assert torch.isfinite(features).all()
    assert load_backbone("random").arch == "resnet50"


def test_lab_color_has_a_digest_of_its_version():
    loaded, again = load_backbone("lab-color"), load_backbone("lab-color", arch="lab-color", seed=5)
    assert_frozen(loaded)
    assert loaded.arch == "lab-color"
    assert loaded.weights_sha256 == again.weights_sha256
    assert len(loaded.weights_sha256) == 64


@pytest.mark.parametrize(("weights", "arch"), [("lab-color", "resnet50"), ("random", "lab-color")])
def test_architectures_that_contradict_the_weights_are_refused(weights, arch):
    with pytest.raises(UserError, match=r"set features\.arch to auto"):
        load_backbone(weights, arch=arch)


def test_real_weights(tmp_path):
    if not REAL.is_file():
        pytest.skip("needs ../shared/weights/resnet50_in1k_stride1x1.safetensors")
    loaded = load_backbone(str(REAL), stride_in_1x1=True)
    assert_frozen(loaded)
    assert loaded.arch == "resnet50"
    with torch.inference_mode():
        c4 = loaded.module(torch.zeros(1, 3, 100, 50), "c4")["c4"]
    assert c4.shape == (1, 1024, 7, 4)


def stating(tmp_path, **said):
    path = tmp_path / "stating.safetensors"
    save_file(build_backbone("resnet50").state_dict(), path, said)
    return str(path)


def test_what_a_file_says_of_itself_holds(tmp_path):
    loaded = load_backbone(stating(tmp_path, stride_in_1x1="true", mean="0.5, 0.5,0.25", std="[1, 0.5, 0.5]"))
    assert loaded.module.layer2[0].conv1.stride == (2, 2)
    assert (loaded.stride_in_1x1, loaded.own_colours) == (True, True)
    assert (loaded.module.mean, loaded.module.std) == ((127.5, 127.5, 63.75), (255, 127.5, 127.5))
    assert loaded.module.folded().mean == loaded.module.mean
    plain = load_backbone(stating(tmp_path, stride_in_1x1="false", backbone="a word"))
    assert (plain.stride_in_1x1, plain.own_colours) == (False, False)
    assert plain.module.mean == build_backbone("resnet50").mean


@pytest.mark.parametrize(
    "said",
    [{"stride_in_1x1": "yes"}, {"mean": "123, 116, 103"}, {"mean": "0.5"}, {"std": "0, 1, 1"}, {"std": "nan, 1, 1"}],
)
def test_what_a_file_says_wrongly_is_refused(tmp_path, said):
    with pytest.raises(UserError, match="of itself: write"):
        load_backbone(stating(tmp_path, **said))


def test_no_model_is_trained_from_weights_with_colours_of_their_own(tmp_path):
    config = load_training_config("knet")
    with pytest.raises(UserError, match="mean or std of its own"):
        load_weights(stating(tmp_path, std="1, 1, 1"), config)
    imagenet = {"mean": "0.485, 0.456, 0.406", "std": "0.229, 0.224, 0.225"}
    assert load_weights(stating(tmp_path, stride_in_1x1="true", **imagenet), config).stride_in_1x1


def test_a_filter_is_registered_for_the_shipped_backbone_alone():
    shipped, random = load_backbone("densecl-r18-mini"), load_backbone("random", arch="resnet18")
    assert (shipped.facts["max_rim"], "max_rim" in random.facts) == (0.8, False)
