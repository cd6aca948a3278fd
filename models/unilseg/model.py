"""The model: an image and a sentence to the response of every pixel.

Shape legend: B pairs of an image and a text, H W pixels, h w cells of stride 4, L tokens.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .fusion import Kind, PreFusion
from .language_path import LANGUAGE_PATHS
from .text import Text, TextEncoder, TextShape
from .vision import Swin, SwinShape
from .vision_path import VisionPath

MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)  # CLIP's
STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)


@dataclass(frozen=True, slots=True)
class Options:
    """Which form each part has, and sizes. `channels` and `embedding` are those of the two paths' widths."""

    prefusion: Kind = "paper"
    vision_path: Kind = "paper"
    language_path: Kind = "paper"
    channels: int = 512
    embedding: int = 256
    hidden: int = 2048
    swin: SwinShape = field(default_factory=SwinShape)
    text: TextShape = field(default_factory=TextShape)


class UniLSeg(nn.Module):
    """Universal segmentation with language (Liu et al., CVPR 2024)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        channels = options.swin.channels
        self.visual = Swin(options.swin)
        self.text = TextEncoder(options.text)
        self.prefusion = PreFusion(options.prefusion, channels, options.text.width)
        self.vision_path = VisionPath(
            options.vision_path, channels, options.text.width, options.channels, options.hidden, options.embedding
        )
        self.language_path = LANGUAGE_PATHS[options.language_path](
            channels[-1], options.text.projection, options.embedding, options.hidden
        )

    def forward(self, images_B3HW: Tensor, tokens_BL: Tensor) -> Tensor:
        """Logits [T, B, h, w]: of every response that is supervised, the last one being the answer."""
        return self.respond(self.visual(images_B3HW), self.text(tokens_BL))

    def respond(self, maps: list[Tensor], text: Text) -> Tensor:
        """The same from what the encoders gave: maps [B, ...] and B texts. All before this is free of the other."""
        fused = self.prefusion(maps, text)
        pixels_BEhw = self.vision_path(fused, text)
        kernels_TBE = self.language_path(fused[-1], text.sentence)
        return torch.einsum("tbe,behw->tbhw", kernels_TBE, pixels_BEhw)

    def ask(self, images_B3HW: Tensor, tokens_QL: Tensor, chunk: int = 8) -> Tensor:
        """Every question of every image: logits [B, Q, h, w]. Images are encoded once."""
        maps, text = self.visual(images_B3HW), self.text(tokens_QL)
        answers = []
        for image in range(len(images_B3HW)):
            for start in range(0, len(tokens_QL), chunk):
                part = slice(start, start + chunk)
                some = Text(text.words[part], text.sentence[part], text.padding[part])
                mine = [one[image : image + 1].expand(len(some.sentence), -1, -1, -1) for one in maps]
                answers.append(self.respond(mine, some)[-1])
        found = torch.cat(answers)
        return found.view(len(images_B3HW), len(tokens_QL), *found.shape[1:])
