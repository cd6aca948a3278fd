"""Mask R-CNN's and ContrastMask's sections: what is refused, and what the code's preset means."""

import pytest
from pydantic import BaseModel

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.load import parse_settings
from saliency_prompt.schemas.training.contrastmask import (
    CONTRASTMASK_PRESETS,
    MASKRCNN_PRESETS,
    ContrastConfig,
    ContrastMaskConfig,
    MaskRCNNConfig,
)


def test_presets_are_valid() -> None:
    for preset in CONTRASTMASK_PRESETS.values():
        parse_settings(ContrastMaskConfig, preset.get("model", {}))
    for preset in MASKRCNN_PRESETS.values():
        parse_settings(MaskRCNNConfig, preset.get("model", {}))


def test_defaults_are_the_papers() -> None:
    paper = ContrastMaskConfig()
    assert (paper.contrast.encoder_convs, paper.contrast.projector_layers) == (8, 3)
    assert (paper.contrast.sigma, paper.contrast.tau, paper.contrast.delta) == (0.3, 0.7, 0.1)
    assert (paper.contrast.loss, paper.contrast.weight, paper.contrast.fuse) == ("paper", 1.0, "add")
    assert (paper.mask_head, paper.box_head, paper.gt_boxes_only) == ("agnostic", "cam", False)


def test_code_compat_sets_all_departures_and_gives_way_to_the_user() -> None:
    code = parse_settings(ContrastMaskConfig, {"code_compat": True})
    head = code.contrast
    assert code.gt_boxes_only
    assert (head.loss, head.tau, head.weight, head.attention, head.projector_norm) == ("code", 0.3, 0.1, True, True)
    assert (head.sigma, head.encoder_convs) == (0.3, 8)
    mine = parse_settings(ContrastMaskConfig, {"code_compat": True, "gt_boxes_only": False, "contrast": {"tau": 0.6}})
    assert not mine.gt_boxes_only
    assert (mine.contrast.tau, mine.contrast.weight) == (0.6, 0.1)
    assert parse_settings(ContrastMaskConfig, code.model_dump()) == code
    assert ContrastMaskConfig(code_compat=True, contrast=ContrastConfig(sigma=0.5)).contrast.weight == 0.1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"box_head": "mlp"}, "no class activation maps"),
        ({"contrast": {"loss": "code", "query_sharing": False}}, "shared queries"),
        ({"contrast": {"sigma": 0}}, "sigma"),
        ({"contrast": {"tau": 1}}, "tau"),
        ({"code_compat": True, "contrast": 3}, "contrast"),
        ({"temperature": 0.2}, "no config key"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_settings(ContrastMaskConfig, values)


def test_every_field_says_what_it_is_for() -> None:
    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation)
            else:
                assert field.description, name
                assert field.description.endswith("."), name

    walk(ContrastMaskConfig)
