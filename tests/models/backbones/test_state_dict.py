import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_prompt.models.backbones.registry import BACKBONES, build_backbone
from saliency_prompt.models.backbones.state_dict import backbone_state, infer_arch, load_backbone_state, unwrap
from saliency_prompt.schemas.errors import UserError


@pytest.fixture(scope="module")
def plain():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return build_backbone("resnet18").state_dict()


def under(prefix, state):
    return {f"{prefix}{k}": v for k, v in state.items()}


def loaded(raw):
    module = build_backbone("resnet18")
    load_backbone_state(module, raw)
    return module.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def saved_as(layout, s, k):
    """A checkpoint with backbone `s` as the known codes save it; `k` is the other, wrong encoder."""
    one = torch.zeros(1)
    return {
        "torchvision": {**s, "fc.weight": one, "fc.bias": one},
        "moco": {
            "epoch": 200,
            "arch": "resnet18",
            "state_dict": {
                **under("module.encoder_k.", k),
                **under("module.encoder_q.", s),
                "module.encoder_q.fc.0.weight": one,
                "module.queue": one,
                "module.queue_ptr": one,
            },
            "optimizer": {"state": {}},
        },
        "openselfsup": {
            "meta": {"epoch": 200},
            "state_dict": {
                **under("encoder_q.0.", s),
                "encoder_q.1.mlp.0.weight": one,
                **under("backbone.", s),
                **under("encoder_k.0.", k),
                "queue": one,
                "queue2": one,
            },
        },
        "dino": {
            "student": under("module.backbone.", k),
            "teacher": {**under("backbone.", s), "head.mlp.0.weight": one},
        },
        "swav": {
            **under("module.", s),
            "module.projection_head.0.weight": one,
            "module.prototypes.weight": one,
        },
        "mmdetection": {"state_dict": {**under("backbone.", s), "neck.conv.weight": one, "bbox_head.cls.weight": one}},
    }[layout]


@pytest.mark.parametrize("layout", ["torchvision", "moco", "openselfsup", "dino", "swav", "mmdetection"])
def test_checkpoints_of_the_known_codes_load(plain, layout):
    wrong = {k: v + 1 for k, v in plain.items()}
    assert same(loaded(saved_as(layout, plain, wrong)), plain)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from(["module", "backbone", "encoder_q", "encoder", "model"]), max_size=4),
    st.lists(st.sampled_from(["state_dict", "model", "teacher"]), max_size=3),
)
def test_prefixes_and_wrappers_nest_in_any_order(plain, prefixes, wrappers):
    raw = under("".join(f"{p}." for p in prefixes), plain)
    for wrapper in wrappers:
        raw = {"epoch": 1, wrapper: raw}
    assert same(backbone_state(raw), plain)


def test_num_batches_tracked_may_be_absent(plain):
    without = {k: v for k, v in plain.items() if not k.endswith("num_batches_tracked")}
    assert same(loaded(without), plain)


def test_missing_names_are_listed_and_counted(plain):
    short = {k: v for k, v in plain.items() if not k.startswith("layer4.1.")}
    with pytest.raises(UserError, match=r"10 missing \(layer4\.1\.conv1\.weight, .* and 2 more\)"):
        loaded(short)


def test_left_over_names_are_listed(plain):
    extra = {**under("module.", plain), "module.layer2.0.attention.weight": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 left over \(layer2\.0\.attention\.weight\)"):
        loaded(extra)


def test_shapes_are_compared(plain):
    wrong = {**plain, "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}
    with pytest.raises(UserError, match=r"layer1\.0\.conv1\.weight \(64, 64, 1, 1\) instead of \(64, 64, 3, 3\)"):
        loaded(wrong)


def test_nothing_is_copied_when_anything_is_wrong(plain):
    module = build_backbone("resnet18")
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(UserError):
        load_backbone_state(module, {**plain, "odd": torch.zeros(1)})
    assert same(module.state_dict(), before)


@pytest.mark.parametrize("arch", [name for name in BACKBONES if name.startswith("resne")])
def test_architecture_is_read_off_the_blocks(arch):
    with torch.device("meta"):
        assert infer_arch(build_backbone(arch).state_dict()) == arch


def test_other_networks_are_refused(plain):
    with pytest.raises(UserError, match="none of resnet18"):
        infer_arch({k: v for k, v in plain.items() if not k.startswith("layer3.1.")})
    with pytest.raises(UserError, match="patch_embed"):
        backbone_state({"model": {"patch_embed.proj.weight": torch.zeros(1)}})
    with pytest.raises(UserError, match="no named tensors"):
        unwrap({"state_dict": {"epoch": 3}})
