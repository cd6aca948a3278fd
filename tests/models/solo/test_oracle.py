"""SOLOv2 and Decoupled SOLO against what mmdetection computed from the same weights and features."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency_prompt.models.detector import Found, Limits, Targets, alone
from saliency_prompt.models.nms import matrix_nms
from saliency_prompt.models.solo.criterion import assign, mask_targets, solo_losses
from saliency_prompt.models.solo.dynamic import DynamicHead
from saliency_prompt.models.solo.head import DecoupledHead, Head, Level
from saliency_prompt.models.solo.inference import find_instances, peaks
from saliency_prompt.models.solo.names import rename_state
from saliency_prompt.models.solo.options import Options
from saliency_prompt.store.weights import read_tensors

ORACLES = Path(__file__).resolve().parents[4] / "shared/data/oracles"
PADDED, SIZES, STORED = (128, 160), [(128, 160), (112, 144)], [(256, 320), (150, 192)]
SMALL = {
    "channels": 64,
    "width": 64,
    "depth": 4,
    "grids": (12, 10, 8, 6, 4),
    "ranges": ((1, 24), (16, 40), (32, 64), (48, 96), (80, 512)),
    "candidates": 10_000,
}
OPTIONS = {
    "mmdet_solov2": Options(
        **SMALL,
        kernel_channels=48,
        feature_width=32,
        feature_groups=16,
        coord_order="code",
        collision="all",
    ),
    "mmdet_decoupled_solo": Options(**SMALL, head="decoupled", collision="last"),
}


def read(name: str) -> dict[str, Tensor]:
    path = ORACLES / name
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/oracles/{name}")
    return {key: value.float() if value.is_floating_point() else value for key, value in read_tensors(path).items()}


def scene() -> tuple[list[Tensor], list[Targets]]:
    data = read("mmdet_resnet18w16_fpn/io.safetensors")
    targets = [
        Targets(
            data[f"gt{i}/masks"], data[f"gt{i}/labels"], data[f"gt{i}/bboxes"], torch.ones(len(data[f"gt{i}/labels"]))
        )
        for i in range(2)
    ]
    return [data[f"fpn/p{i}"] for i in range(2, 7)], targets


def load(folder: str) -> tuple[Head, dict[str, Tensor]]:
    options = OPTIONS[folder]
    head = (DynamicHead if options.head == "dynamic" else DecoupledHead)(5, options)
    renamed, unknown = rename_state(read(f"{folder}/weights.safetensors"), options)
    assert unknown == []
    head.load_state_dict({name.removeprefix("head."): value for name, value in renamed.items()})
    return head, read(f"{folder}/io.safetensors")


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("folder", OPTIONS)
def test_outputs_of_the_head(folder: str) -> None:
    pyramid, _ = scene()
    head, io = load(folder)
    with torch.no_grad():
        levels = head(pyramid)
        for number, level in enumerate(levels):
            close(level.classes, io[f"train_forward/cls_preds/{number}"])
            if level.kernels is not None:
                close(level.kernels, io[f"train_forward/kernel_preds/{number}"])
                close(level.maps[0], io["train_forward/mask_feats"])
                continue
            close(peaks_of(level), io[f"eval_forward/cls_preds/{number}"])
            assert isinstance(head, DecoupledHead)
            cells = torch.arange(head.options.grids[number] ** 2)
            for image in range(2):
                x, y = (io[f"train_forward/mask_preds_{axis}/{number}"][image].sigmoid() for axis in "xy")
                product = (y[:, None] * x).flatten(0, 1)
                close(head.logits(level, number, image, cells).sigmoid(), product)
                x, y = (io[f"eval_forward/mask_preds_{axis}/{number}"][image] for axis in "xy")
                close(head.soft(level, number, image, cells, (32, 40)), (y[:, None] * x).flatten(0, 1))


def peaks_of(level: Level) -> Tensor:
    return torch.stack([peaks(one.sigmoid()) for one in level.classes])


@pytest.mark.parametrize("folder", OPTIONS)
def test_targets(folder: str) -> None:
    _, targets = scene()
    _, io = load(folder)
    options = OPTIONS[folder]
    for one in assign(targets, options, PADDED):
        key = f"target{one.image}/{{}}/{one.number}"
        labels = torch.cat([targets[one.image].labels, torch.tensor([5])])[one.cells.owners]
        assert torch.equal(labels, io[key.format("labels")].flatten())
        wanted = io[key.format("mask_targets")]
        stride = PADDED[0] // wanted.shape[1]
        found = mask_targets(targets[one.image].masks, stride, outlines=False)[one.cells.objects]
        grid = options.grids[one.number]
        if folder == "mmdet_solov2":
            cells = io[key.format("pos_index")].long()
        else:
            cells = io[key.format("xy_pos_index")] @ torch.tensor([grid, 1])
        rows = sorted((int(cell), mask.numpy().tobytes()) for cell, mask in zip(one.cells.cells, found, strict=True))
        assert rows == sorted((int(cell), mask.numpy().tobytes()) for cell, mask in zip(cells, wanted, strict=True))


@pytest.mark.parametrize("folder", OPTIONS)
def test_losses_and_gradients(folder: str) -> None:
    pyramid, targets = scene()
    head, io = load(folder)
    pyramid = [one.requires_grad_() for one in pyramid]
    losses = solo_losses(head, head(pyramid), targets, PADDED, alone)
    close(losses["mask"], io["loss/loss_mask"])
    close(losses["class"], io["loss/loss_cls"])
    sum(losses.values()).backward()
    for number, one in enumerate(pyramid, start=2):
        close(one.grad, io[f"grad/p{number}"])
    norms, unknown = rename_state(
        {k.removeprefix("gradnorm/"): v for k, v in io.items() if k.startswith("gradnorm/")}, head.options
    )
    assert unknown == []
    assert len(norms) == len(list(head.parameters()))
    for name, parameter in head.named_parameters():
        close(parameter.grad.norm(), norms[f"head.{name}"])


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
@pytest.mark.parametrize("folder", OPTIONS)
def test_predictions(folder: str, kernel: str) -> None:
    from dataclasses import replace

    pyramid, _ = scene()
    head, io = load(folder)
    head.options = replace(head.options, nms_kernel=kernel)
    with torch.inference_mode():
        levels = head(pyramid)
        for image in range(2):
            found = find_instances(head, levels, image, Limits(), (32, 40))
            wanted = {part: io[f"pred_{kernel}/{image}/{part}"] for part in ("scores", "labels", "masks_packed")}
            compare(found, image, wanted)


def compare(found: Found, image: int, wanted: dict[str, Tensor]) -> None:
    """As sets, since the order of nearly equal scores is anyone's."""
    (height, width), (rows, columns) = STORED[image], SIZES[image]
    padded = F.interpolate(found.maps[None], PADDED, mode="bilinear", align_corners=False)
    full = F.interpolate(padded[:, :, :rows, :columns], (height, width), mode="bilinear", align_corners=False)
    masks = (full[0] > 0.5).numpy()
    theirs = np.unpackbits(wanted["masks_packed"].numpy(), axis=-1)[..., :width].astype(bool)
    assert len(found) == len(theirs)
    close(found.scores, wanted["scores"])
    free = list(range(len(theirs)))
    for mask, score, label in zip(masks, found.scores, found.labels, strict=True):
        partner = next(
            i
            for i in free
            if wanted["labels"][i] == label
            and abs(wanted["scores"][i] - score) < 1e-4
            and (theirs[i] != mask).sum() <= 2
        )
        free.remove(partner)


def test_backbone_and_pyramid_names() -> None:
    weights = read("mmdet_resnet18w16_fpn/weights.safetensors")
    _, unknown = rename_state(weights, Options())
    assert unknown == []


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_matrix_nms(kernel: str) -> None:
    io = read("mmdet_matrix_nms/io.safetensors")
    cases = {name.split("/")[0] for name in io} - {"d_all_filtered"}
    assert cases
    for case in sorted(cases):
        order = io[f"{case}/scores"].sort(descending=True, stable=True)
        masks = io[f"{case}/masks"][order.indices].flatten(1).float()
        scores, labels = order.values, io[f"{case}/labels"][order.indices]
        first, most = (int(io[f"{case}/cfg/{name}"]) for name in ("nms_pre", "max_num"))
        first, most = (len(scores) if n < 0 else n for n in (first, most))
        coeff = float(io[f"{case}/cfg/sigma"])
        decayed = matrix_nms(
            masks[None, :first], scores[None, :first], labels[None, :first], kernel=kernel, gaussian_coeff=coeff
        )[0]
        least = float(io[f"{case}/cfg/filter_thr"])
        kept = decayed[decayed >= least] if least > 0 else decayed
        found = kept.sort(descending=True).values[:most]
        wanted = io[f"{case}/{kernel}/scores"]
        if case[0] in "fg" and kernel == "linear":  # three equal masks: 0 / 0 is nan there, 0 here
            wanted = wanted[~wanted.isnan()]
            found = found[: len(wanted)]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
