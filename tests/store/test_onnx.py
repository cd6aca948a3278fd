import struct
from pathlib import Path

import pytest
import torch

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.onnx import named_tensors, read_onnx


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, values: torch.Tensor, *, packed: bool = False) -> bytes:
    shape = (
        field(1, b"".join(varint(n) for n in values.shape)) if packed else b"".join(field(1, n) for n in values.shape)
    )
    raw = struct.pack(f"<{values.numel()}f", *values.flatten().tolist())
    return shape + field(2, 1) + field(8, name) + field(4 if packed else 9, raw)


def node(kind: str, inputs: list[str], output: str, extra: bytes = b"") -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind) + extra


WEIGHT, BIAS = torch.arange(600.0).reshape(3, 200), torch.tensor([1.5, -2.0])


def model() -> bytes:
    constant = field(5, field(1, "value") + field(5, tensor("", torch.ones(2, 2))))
    graph = (
        field(1, node("MatMul", ["x", "onnx::MatMul_7"], "y"))
        + field(1, node("Add", ["layer.bias", "y"], "z"))
        + field(1, node("Constant", [], "c", constant))
        + field(5, tensor("onnx::MatMul_7", WEIGHT))
        + field(5, tensor("layer.bias", BIAS, packed=True))
        + field(5, field(1, 1) + field(2, 7) + field(8, "shape") + field(9, bytes(8)))  # int64
    )
    return field(1, 8) + field(2, "torch") + field(7, graph)


def test_tensors_and_nodes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model())
    graph = read_onnx(path)
    assert [one.kind for one in graph.nodes] == ["MatMul", "Add", "Constant"]
    assert set(graph.tensors) == {"onnx::MatMul_7", "layer.bias", "c"}
    assert torch.equal(graph.tensors["onnx::MatMul_7"], WEIGHT)
    assert torch.equal(graph.tensors["layer.bias"], BIAS)


def test_a_weight_is_named_by_the_bias_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model())
    named = named_tensors(read_onnx(path))
    assert set(named) == {"layer.weight", "layer.bias", "c"}
    assert torch.equal(named["layer.weight"], WEIGHT.T)


@pytest.mark.parametrize("cut", [0, 1, 5, 100, -3])
def test_a_damaged_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model()[:cut])
    with pytest.raises(UserError, match="no ONNX file"):
        read_onnx(path)
