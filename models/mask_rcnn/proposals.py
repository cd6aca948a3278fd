"""Region proposals: torchvision's network, with its loss divided so that processes can be averaged.

Ren et al., Faster R-CNN, section 3.1, on the levels of a pyramid (FPN, section 4.1). Shape legend: B images, H W pixels
of the padded batch, A anchors of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers

from ..detector import Average, Size

RATIOS = (0.5, 1.0, 2.0)  # height over width of an anchor
BETA = 1 / 9  # where torchvision's box losses turn from square to linear


@dataclass(frozen=True, slots=True, eq=False)
class Proposed:
    """boxes: XYXY [n, 4] of each image, best first. Of all anchors: objectness [B A, 1], deltas [B A, 4], boxes."""

    boxes: list[Tensor]
    objectness: Tensor
    deltas: Tensor
    anchors: list[Tensor]


def build_proposals(
    channels: int, strides: Sequence[int], *, scale: float, keep: tuple[int, int], nms: float, sampled: int
) -> RegionProposalNetwork:
    """The network for levels of these strides; `keep` is how many proposals in training and otherwise."""
    sizes = tuple((scale * stride,) for stride in strides)
    per_phase = {"training": keep[0], "testing": keep[1]}
    return RegionProposalNetwork(
        AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
        RPNHead(channels, len(RATIOS)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=sampled,
        positive_fraction=0.5,
        pre_nms_top_n=per_phase,
        post_nms_top_n=per_phase,
        nms_thresh=nms,
    )


def propose(
    rpn: RegionProposalNetwork, images_B3HW: Tensor, pyramid: dict[str, Tensor], sizes: Sequence[Size]
) -> Proposed:
    """Proposals of each image, within its size; in fp32, whatever the pyramid's type."""
    maps = list(pyramid.values())
    objectness, deltas = rpn.head(maps)
    counts = [one.shape[1] * one.shape[2] * one.shape[3] for one in objectness]
    grids = [one.new_empty((1, 1, *one.shape[2:]), dtype=torch.float32) for one in maps]
    anchors = rpn.anchor_generator(ImageList(images_B3HW, list(sizes)), grids)
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    objectness, deltas = objectness.float(), deltas.float()
    boxes = rpn.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
    found, _ = rpn.filter_proposals(boxes, objectness, list(sizes), counts)
    return Proposed(found, objectness, deltas, anchors)


def proposal_losses(
    rpn: RegionProposalNetwork, proposed: Proposed, boxes: Sequence[Tensor], average: Average
) -> dict[str, Tensor]:
    """Objectness and box losses of anchors sampled against the objects' boxes [M, 4] of each image."""
    labels, matched = rpn.assign_targets_to_anchors(proposed.anchors, [{"boxes": one} for one in boxes])
    wanted = torch.cat(rpn.box_coder.encode(matched, proposed.anchors))
    positive, negative = (torch.cat(chosen).bool() for chosen in rpn.fg_bg_sampler(labels))
    sampled = positive | negative
    count = average(sampled.sum().float())
    objectness = F.binary_cross_entropy_with_logits(
        proposed.objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
    )
    moved = F.smooth_l1_loss(proposed.deltas[positive], wanted[positive], beta=BETA, reduction="sum")
    return {"rpn_objectness": objectness / count, "rpn_box": moved / count}
