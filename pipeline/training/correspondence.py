"""The correspondence picture of a run."""

from pathlib import Path

from ...models.backbones.registry import build_backbone
from ...schemas.load import parse_settings
from ...schemas.training.densecl import DenseCLConfig
from ...stages.recipes.densecl.correspond import Correspondence, correspond, draw_correspondence
from ...stages.recipes.densecl.export import read_backbone
from ..sources import open_source


def picture(
    run: Path, photo: str, out: Path, *, threshold: float = 0.9, seed: int = 0, size: int = 0
) -> Correspondence:
    """Match two views of a photograph with the newest weights of a run, and write the picture to `out`.

    `size` is the side of the views in pixels; 0 takes 320 or the run's, whichever is larger.
    """
    tensors, card, _ = read_backbone(run)
    config = parse_settings(DenseCLConfig, card.config)
    backbone = build_backbone(config.model.arch)
    backbone.load_state_dict(tensors)
    augment = config.augment.model_copy(update={"size": size or max(320, config.augment.size)})
    ref = next(iter(open_source(photo).refs()))
    result = correspond(backbone.eval(), ref, augment, threshold=threshold, seed=seed)
    draw_correspondence(result, out)
    return result
