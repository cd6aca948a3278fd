"""The language path: from a sentence and the coarsest fused map to the kernel of a mask (UniLSeg, section 3.2).

`paper`: the sentence attends to the map, and the result to itself and to the initial sentence. `code`: as released,
six DETR decoder layers around one query, all of which are supervised. `none`: the sentence, projected (the baseline).

Shape legend: B pairs, C width, D width of sentences, N cells.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .fusion import DROPOUT, HEADS, Kind
from .positions import sine_map
from .vision_path import conv_norm

LAYERS = 6


class PaperLanguagePath(nn.Module):
    """t0 = W f_s; t1 = LN(t0 + attention to the map); t = LN(t1 + attention to [t0; t1]); t = LN(t + FFN t)."""

    def __init__(self, inside: int, sentence: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.visual = conv_norm(inside, channels, 3)
        self.sentence = nn.Linear(sentence, channels)
        self.to_map = nn.MultiheadAttention(channels, HEADS, dropout=DROPOUT, batch_first=True)
        self.to_self = nn.MultiheadAttention(channels, HEADS, dropout=DROPOUT, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(hidden, channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))

    def forward(self, map_BCHW: Tensor, sentence_BD: Tensor) -> Tensor:
        """[1, B, C]."""
        memory, places = _memory(self.visual(map_BCHW))
        first = self.sentence(sentence_BD)[:, None]
        seen, _ = self.to_map(first, memory + places, memory, need_weights=False)
        second = self.norms[0](first + seen)
        both = torch.cat([first, second], dim=1)
        mixed, _ = self.to_self(second, both, both, need_weights=False)
        token = self.norms[1](second + mixed)
        token = self.norms[2](token + self.feed(token))
        return token.transpose(0, 1)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Self-attention, attention to the map, feed-forward, each with a residual and a norm after it (DETR)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.to_self = nn.MultiheadAttention(channels, HEADS, dropout=DROPOUT, batch_first=True)
        self.to_map = nn.MultiheadAttention(channels, HEADS, dropout=DROPOUT, batch_first=True)
        self.feed = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(hidden, channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, token: Tensor, query: Tensor, memory: Tensor, places: Tensor) -> Tensor:
        """token, query [B, 1, C]; memory [B, N, C] with places [N, C]."""
        own = token + query
        token = self.norms[0](token + self.dropout(self.to_self(own, own, token, need_weights=False)[0]))
        seen, _ = self.to_map(token + query, memory + places, memory, need_weights=False)
        token = self.norms[1](token + self.dropout(seen))
        return self.norms[2](token + self.dropout(self.feed(token)))  # type: ignore[no-any-return]


class CodeLanguagePath(nn.Module):
    """One query, zero at first, whose position is the sentence."""

    def __init__(self, inside: int, sentence: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.visual = conv_norm(inside, channels, 3)
        self.sentence = nn.Sequential(nn.Linear(sentence, channels, bias=False), nn.BatchNorm1d(channels), nn.ReLU())
        self.layers = nn.ModuleList(DecoderLayer(channels, hidden) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(channels)
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, map_BCHW: Tensor, sentence_BD: Tensor) -> Tensor:
        """[layers, B, C], the last one last."""
        memory, places = _memory(self.visual(map_BCHW))
        query = self.sentence(sentence_BD)[:, None]
        token = torch.zeros_like(query)
        tokens = []
        for layer in self.layers:
            token = layer(token, query, memory, places)
            tokens.append(self.norm(token)[:, 0])
        return torch.stack(tokens)


class BareLanguagePath(nn.Module):
    """The sentence alone."""

    def __init__(self, inside: int, sentence: int, channels: int, hidden: int) -> None:
        super().__init__()
        del inside, hidden
        self.sentence = nn.Linear(sentence, channels)

    def forward(self, map_BCHW: Tensor, sentence_BD: Tensor) -> Tensor:
        """[1, B, C]."""
        del map_BCHW
        return self.sentence(sentence_BD)[None]  # type: ignore[no-any-return]


LANGUAGE_PATHS: dict[Kind, Any] = {"paper": PaperLanguagePath, "code": CodeLanguagePath, "none": BareLanguagePath}


def _memory(map_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Cells [B, N, C] and their places [N, C]."""
    _, channels, height, width = map_BCHW.shape
    cells = map_BCHW.flatten(2).transpose(1, 2)
    return cells, sine_map(height, width, channels, cells)
