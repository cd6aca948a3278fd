"""The tensors of an ONNX file, and what each node takes and gives: enough of protobuf to read weights from one.

Field numbers are those of onnx.proto3 (ModelProto 7 = graph; GraphProto 1 = node, 5 = initializer; NodeProto
1 = input, 2 = output, 4 = op_type, 5 = attribute; TensorProto 1 = dims, 2 = data_type, 4 = float_data, 8 = name,
9 = raw_data; AttributeProto 5 = t). Tensors of other types than fp32 are left out.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..schemas.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_FLOAT = 1  # TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a graph: names of what it reads and writes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Nodes in the order of execution, and the constants by name: initializers and outputs of Constant nodes."""

    nodes: tuple[Node, ...]
    tensors: "dict[str, Tensor]"


def read_onnx(path: Path) -> Graph:
    """The graph of an ONNX file. Raises UserError for a file that is none."""
    try:
        data = memoryview(path.read_bytes())
        graph = next(value for number, value in _fields(data) if number == 7 and isinstance(value, memoryview))
        return _graph(graph)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give a file that is there") from error
    except (IndexError, ValueError, StopIteration) as error:
        raise UserError(f"{path} is no ONNX file, or is damaged: give an ONNX model, or fetch it again") from error


def named_tensors(graph: Graph) -> "dict[str, Tensor]":
    """The constants under the names of the module that was exported.

    The exporter stores the transposed weight of a linear layer under a number; the addition after its product names
    the layer by its bias.
    """
    maker = {node.outputs[0]: node for node in graph.nodes if node.outputs}
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        biases = [name for name in node.inputs if name.endswith(".bias") and name in graph.tensors]
        products = [maker[name] for name in node.inputs if name in maker and maker[name].kind == "MatMul"]
        if node.kind == "Add" and biases and products and products[0].inputs[-1] in tensors:
            tensors[biases[0].removesuffix("bias") + "weight"] = tensors.pop(products[0].inputs[-1]).T
    return tensors


def _graph(data: memoryview) -> Graph:
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            node, constant = _node(value)
            nodes.append(node)
            if constant is not None:
                tensors[node.outputs[0]] = constant
        elif number == 5:
            name, tensor = _tensor(value)
            if tensor is not None:
                tensors[name] = tensor
    return Graph(tuple(nodes), tensors)


def _node(data: memoryview) -> "tuple[Node, Tensor | None]":
    kind, inputs, outputs, constant = "", [], [], None
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 5 and kind in ("", "Constant"):
            held = [v for n, v in _fields(value) if n == 5 and isinstance(v, memoryview)]
            constant = _tensor(held[0])[1] if held else constant
    return Node(kind, tuple(inputs), tuple(outputs)), constant if kind == "Constant" else None


def _tensor(data: memoryview) -> "tuple[str, Tensor | None]":
    import torch

    name, kind, shape, raw = "", 0, [], memoryview(b"")
    for number, value in _fields(data):
        if number == 1:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif number == 2 and isinstance(value, int):
            kind = value
        elif isinstance(value, memoryview):
            name = _text(value) if number == 8 else name
            raw = value if number in (4, 9) else raw
    if kind != _FLOAT:
        return name, None
    if len(raw) != 4 * math.prod(shape):
        raise ValueError(f"{name} has {len(raw)} bytes")
    # a copy: the file's bytes are neither writable nor aligned
    return name, torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(shape) if raw else torch.zeros(shape)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message: a number, or the bytes of what has a length."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        if wire == _BYTES:
            size, at = _varint(data, at)
        if size < 0 or at + size > len(data):
            raise ValueError("no protobuf message")
        yield number, data[at : at + size]
        at += size


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _text(data: memoryview) -> str:
    return bytes(data).decode()
