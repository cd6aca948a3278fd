"""The text encoder: CLIP's transformer, from the `transformers` package.

Shape legend: B texts, L tokens, C width, D width of the projection.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from ...schemas.errors import UserError
from .tokenizer import padding


@dataclass(frozen=True, slots=True)
class TextShape:
    """Sizes of the tower; the defaults are CLIP ViT-B/16's. `context` is that of its positions."""

    vocabulary: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    hidden: int = 2048
    context: int = 77
    projection: int = 512


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """words [B, L, C] after the last norm; sentence [B, D], the end mark's state, projected; padding bool [B, L]."""

    words: Tensor
    sentence: Tensor
    padding: Tensor

    def repeat(self, times: int) -> "Text":
        """Every text so many times in a row."""
        return Text(*(one.repeat_interleave(times, 0) for one in (self.words, self.sentence, self.padding)))


class TextEncoder(nn.Module):
    """Words and sentences of tokens that end in the vocabulary's last number."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        try:
            from transformers import CLIPTextConfig, CLIPTextModelWithProjection
        except ImportError:
            raise UserError(
                "UniLSeg's text encoder needs transformers: pip install saliency-prompt[annotate]."
            ) from None
        self.end = shape.vocabulary - 1
        self.tower = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.width,
                intermediate_size=shape.hidden,
                projection_dim=shape.projection,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                max_position_embeddings=shape.context,
                hidden_act="quick_gelu",
                bos_token_id=shape.vocabulary - 2,
                eos_token_id=self.end,
                pad_token_id=0,
            )
        )

    def forward(self, tokens_BL: Tensor) -> Text:
        """Of int64 tokens [B, L], as `Tokenizer.batch` makes them."""
        out = self.tower(input_ids=tokens_BL)
        return Text(out.last_hidden_state, out.text_embeds, padding(tokens_BL, self.end))
