"""Mask R-CNN on any backbone with a pyramid, with ContrastMask's class activation maps and contrastive head.

He et al., Mask R-CNN; Wang et al., ContrastMask. Below `rpn` and `roi_heads` the state dict is torchvision's, so that
the same weights give the same detections. Shape legend: B images, R regions, P those that hold an object, n instances,
K classes, C channels, H W pixels of the padded batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ...schemas.training.contrastmask import ContrastConfig, ContrastMaskConfig, MaskRCNNConfig
from ..backbones.base import LEVELS, Backbone
from ..detector import Average, Detector, Found, Limits, Size, Targets
from .cam import ConvBoxHead, ConvBoxPredictor, activation_maps, resize, to_unit
from .contrast import SIDE, ContrastiveHead, Regions
from .proposals import build_proposals, proposal_losses, propose
from .rois import (
    box_losses,
    choose_masks,
    detect,
    mask_loss,
    pool_regions,
    positive_regions,
    sample_regions,
)

BOX_SIDE, MASK_SIDE = 7, 14  # cells of a region in the box head and in the mask head
SAMPLING = 2  # points of a cell along each axis that RoIAlign averages


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The box head on every region: class logits [R, K + 1], deltas [R, 4 (K + 1)], and its features if it has maps."""

    logits: Tensor
    deltas: Tensor
    features: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Contrasted:
    """What the contrastive head sees in each instance of one image, at 28 cells.

    found: the instances. cams [n, 28, 28] in 0..1; front and back: pixels that the activation map makes foreground and
    background; easy and hard: +1 a foreground key, -1 a background key, with the found masks for truth;
    features [n, C, 28, 28] of the encoder.
    """

    found: Found
    cams: Tensor
    front: Tensor
    back: Tensor
    easy: Tensor
    hard: Tensor
    features: Tensor


class MaskRCNN(Detector):
    """Mask R-CNN. With `cam` the mask head sees class activation maps, with `contrast` the contrastive head's features.

    Objects without a mask (`Targets.has_mask`) teach boxes and contrast alone. `epoch` is for the contrast's warm-up;
    a model that nobody tells has its full weight.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        options: MaskRCNNConfig,
        *,
        cam: bool = False,
        contrast: ContrastConfig | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.num_classes, self.options = backbone, num_classes, options
        self.levels = [level for level in LEVELS if level in backbone.channels]
        self.names = [f"p{level[1]}" for level in self.levels]
        self.uses_cam, self.epoch = cam, float("inf")
        strides = [backbone.strides[level] for level in self.levels]
        width, classes = options.channels, num_classes + 1
        self.fpn = FeaturePyramidNetwork(
            [backbone.channels[level] for level in self.levels], width, extra_blocks=LastLevelMaxPool()
        )
        self.rpn = build_proposals(
            width,
            [*strides, 2 * strides[-1]],
            scale=options.anchor_scale,
            keep=(options.proposals_train, options.proposals_test),
            nms=options.proposal_nms,
            sampled=options.anchors_sampled,
        )
        with_maps = options.box_head == "cam"
        mask_input = 2 * width if contrast is not None and contrast.fuse == "concat" else width
        self.roi_heads = RoIHeads(
            MultiScaleRoIAlign(self.names, BOX_SIDE, SAMPLING),
            ConvBoxHead(width) if with_maps else TwoMLPHead(width * BOX_SIDE**2, options.hidden),
            ConvBoxPredictor(width, classes) if with_maps else FastRCNNPredictor(options.hidden, classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=options.rois,
            positive_fraction=options.positive_share,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=options.score_threshold,
            nms_thresh=options.nms,
            detections_per_img=Limits().most,
            mask_roi_pool=MultiScaleRoIAlign(self.names, MASK_SIDE, SAMPLING),
            mask_head=MaskRCNNHeads(mask_input, (width,) * options.mask_convs, 1),
            mask_predictor=MaskRCNNPredictor(width, width, 1 if options.mask_head == "agnostic" else classes),
        )
        self.contrast = None if contrast is None else ContrastiveHead(width, contrast)
        self.contrast_pool = MultiScaleRoIAlign(self.names, SIDE, SAMPLING)

    def advance(self, epoch: float) -> None:
        """See `Detector`."""
        self.epoch = epoch

    def losses(
        self, images_B3HW: Tensor, sizes: Sequence[Size], targets: Sequence[Targets], average: Average
    ) -> dict[str, Tensor]:
        """See `Detector`: `rpn_objectness`, `rpn_box`, `class`, `box`, `mask` and, with the head, `contrast`.

        Every loss is a sum over anchors or regions by the mean of their number over processes: averaged over
        processes it is exactly that of one process with all images and the same draws. The contrast's shared queries
        are means over all processes, too; the released code's contrast alone is a mean of what each process has.
        Boxes without area are left out. Anchors and regions are drawn by torch's generator.
        """
        targets = [with_area(one) for one in targets]
        padded = (images_B3HW.shape[2], images_B3HW.shape[3])
        pyramid = self.pyramid(images_B3HW)
        proposed = propose(self.rpn, images_B3HW, pyramid, sizes)
        losses = proposal_losses(self.rpn, proposed, [one.boxes.float() for one in targets], average)
        sampled = sample_regions(self.roi_heads, proposed.boxes, targets)
        boxes = self._boxes(pyramid, sampled.boxes, padded)
        positives = positive_regions(sampled, targets, 2 * MASK_SIDE)
        losses |= box_losses(boxes.logits, boxes.deltas, sampled, positives, average)
        cams = self._cams(boxes, positives.places, positives.labels)
        logits, features = self._masks(pyramid, positives.boxes, padded, cams)
        losses["mask"] = mask_loss(logits, positives, average, truth_only=self.options.gt_boxes_only)
        if self.contrast is not None:
            assert features is not None
            assert cams is not None
            known = Regions(_cams_at_contrast(cams), positives.masks.detach(), positives.has_mask)
            losses["contrast"] = self.contrast.loss(features, known, average, self.epoch)
        return losses

    def find(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Found]:
        """See `Detector`: maps of 28 x 28 in boxes; sources are proposals. The model must be in eval mode."""
        return [found for found, _, _ in self._find(images_B3HW, sizes, limits)]

    def explain(self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits) -> list[Contrasted]:
        """What the contrastive head sees in what `find` finds; keys are drawn by torch's generator."""
        assert self.contrast is not None
        seen = []
        for found, cams, features in self._find(images_B3HW, sizes, limits):
            assert cams is not None
            assert features is not None
            at_contrast = _cams_at_contrast(cams)
            nobody = torch.zeros(len(found), dtype=torch.bool, device=cams.device)
            by_map = Regions(at_contrast, found.maps.float(), nobody)
            by_mask = Regions(at_contrast, found.maps.float(), ~nobody)
            cells, _ = self.contrast.cells(by_map)
            inside, trusted = self.contrast.cells(by_mask)
            keys = self.contrast.keys(inside, by_mask, trusted)
            easy = keys.easy_front.int() - keys.easy_back.int()
            hard = keys.hard_front.int() - keys.hard_back.int()
            seen.append(Contrasted(found, at_contrast, cells.front, cells.back, easy, hard, features))
        return seen

    def class_layers(self) -> list[str]:
        """See `Detector`."""
        names = ["roi_heads.box_predictor."]
        return names if self.options.mask_head == "agnostic" else [*names, "roi_heads.mask_predictor.mask_fcn_logits."]

    def pyramid(self, images_B3HW: Tensor) -> dict[str, Tensor]:
        """Maps of equal width, finest first; the last is the coarsest level at half its resolution."""
        maps = self.backbone(images_B3HW, self.levels[-1])
        found: dict[str, Tensor] = self.fpn({f"p{level[1]}": maps[level] for level in self.levels})
        return found

    def _boxes(self, pyramid: dict[str, Tensor], boxes: list[Tensor], padded: Size) -> Boxes:
        pooled = pool_regions(self.roi_heads.box_roi_pool, pyramid, boxes, padded)
        hidden = self.roi_heads.box_head(pooled)
        logits, deltas = self.roi_heads.box_predictor(hidden)
        return Boxes(logits, deltas, hidden[0] if self.options.box_head == "cam" else None)

    def _cams(self, boxes: Boxes, places: Tensor, labels: Tensor) -> Tensor | None:
        """Raw activation maps at the mask head's cells, of the regions at `places` for their class."""
        if boxes.features is None or not (self.uses_cam or self.contrast is not None):
            return None
        weights: Tensor = self.roi_heads.box_predictor.cls_score.weight
        return resize(activation_maps(boxes.features[places], weights, labels), MASK_SIDE)

    def _masks(
        self, pyramid: dict[str, Tensor], boxes: list[Tensor], padded: Size, cams: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of masks [R, 1 or K + 1, 28, 28], and the contrastive head's features where there is one."""
        inputs = pool_regions(self.roi_heads.mask_roi_pool, pyramid, boxes, padded)
        features = None
        if self.uses_cam:
            assert cams is not None
            inputs = inputs + to_unit(cams)[:, None].to(inputs.dtype)
        if self.contrast is not None:
            detached = {name: one.detach() for name, one in pyramid.items()}
            features = self.contrast.encode(pool_regions(self.contrast_pool, detached, boxes, padded))
            inputs = self.contrast.join(inputs, features)
        logits: Tensor = self.roi_heads.mask_predictor(self.roi_heads.mask_head(inputs))
        return logits, features

    def _find(
        self, images_B3HW: Tensor, sizes: Sequence[Size], limits: Limits
    ) -> list[tuple[Found, Tensor | None, Tensor | None]]:
        """Instances of each image, with their raw activation maps and the contrastive head's features."""
        padded = (images_B3HW.shape[2], images_B3HW.shape[3])
        pyramid = self.pyramid(images_B3HW)
        proposals = propose(self.rpn, images_B3HW, pyramid, sizes).boxes
        boxes = self._boxes(pyramid, proposals, padded)
        detections = detect(
            self.roi_heads,
            boxes.logits,
            boxes.deltas,
            proposals,
            sizes,
            above=self.options.score_threshold,
            least=limits.min_score,
            most=limits.most,
        )
        starts = [0]
        for one in proposals:
            starts.append(starts[-1] + len(one))
        places = torch.cat([one.sources + start for one, start in zip(detections, starts[:-1], strict=True)])
        labels = torch.cat([one.labels for one in detections])
        cams = self._cams(boxes, places, labels)
        logits, features = self._masks(pyramid, [one.boxes for one in detections], padded, cams)
        maps = choose_masks(logits, labels).float().sigmoid()
        counts = [len(one.scores) for one in detections]
        absent = [None] * len(counts)
        return [
            (Found(own_maps, one.scores, one.labels - 1, one.sources, one.boxes), own_cams, own_features)
            for one, own_maps, own_cams, own_features in zip(
                detections,
                torch.split(maps, counts),
                absent if cams is None else torch.split(cams, counts),
                absent if features is None else torch.split(features, counts),
                strict=True,
            )
        ]


def _cams_at_contrast(cams_RTT: Tensor) -> Tensor:
    return to_unit(resize(cams_RTT.detach(), SIDE))


def with_area(target: Targets) -> Targets:
    """The objects whose box has an area: an anchor or region can be compared with no other."""
    keep = (target.boxes[:, 2] > target.boxes[:, 0]) & (target.boxes[:, 3] > target.boxes[:, 1])
    if bool(keep.all()):
        return target
    return replace(
        target,
        masks=target.masks[keep],
        labels=target.labels[keep],
        boxes=target.boxes[keep],
        weights=target.weights[keep],
        has_mask=None if target.has_mask is None else target.has_mask[keep],
    )


def build(backbone: Backbone, num_classes: int, options: MaskRCNNConfig) -> MaskRCNN:
    """Mask R-CNN, or ContrastMask from its own section, with fresh parameters from torch's generator."""
    if isinstance(options, ContrastMaskConfig):
        contrast = options.contrast if options.cl_head else None
        return MaskRCNN(backbone, num_classes, options, cam=options.cam, contrast=contrast)
    return MaskRCNN(backbone, num_classes, options)
