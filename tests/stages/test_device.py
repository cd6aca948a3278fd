"""What `auto` stands for, and devices that a machine does not have."""

import pytest
import torch

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.stages.device import automatic, resolve_device, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("units", "precision"),
    [
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx2": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, units: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert resolve_precision("auto", CPU) == automatic(CPU)["precision"] == precision
    assert resolve_precision("fp32", CPU) == "fp32"


def test_a_device_that_is_not_there() -> None:
    assert resolve_device("cpu") == CPU
    for name in ("cuda:99", "gpu", ""):
        with pytest.raises(UserError, match="take"):
            resolve_device(name)
