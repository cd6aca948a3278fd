"""Queries that look at one map after another, each within the mask it has (Mask2Former, section 3.2).

Shape legend: B images, N queries, C channels, K classes, S cells of a map, h w cells at stride 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward network; each followed by addition and normalisation."""

    def __init__(self, channels: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.cross_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.cross_attention_norm = nn.LayerNorm(channels)
        self.self_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.self_attention_norm = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.feed_forward_norm = nn.LayerNorm(channels)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, queries_BNC: Tensor, where_NC: Tensor, cells_BSC: Tensor, places_1SC: Tensor, blocked_BNS: Tensor
    ) -> Tensor:
        """Queries and their places, cells and theirs, and what no query may see: [B, N, C]."""
        heads = self.cross_attention.num_heads
        blocked = blocked_BNS.repeat_interleave(heads, 0)
        seen, _ = self.cross_attention(
            queries_BNC + where_NC, cells_BSC + places_1SC, cells_BSC, attn_mask=blocked, need_weights=False
        )
        queries_BNC = self.cross_attention_norm(queries_BNC + seen)
        placed = queries_BNC + where_NC
        heard, _ = self.self_attention(placed, placed, queries_BNC, need_weights=False)
        queries_BNC = self.self_attention_norm(queries_BNC + heard)
        normed: Tensor = self.feed_forward_norm(queries_BNC + self.feed_forward(queries_BNC))
        return normed


class PredictionHead(nn.Module):
    """What a query says: one head for all layers."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.classes = nn.Linear(channels, num_classes + 1)
        self.mask_embed = nn.Sequential(
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
        )

    def forward(self, queries_BNC: Tensor, features_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of classes [B, N, K + 1], the last of which is no object, and of masks [B, N, h, w]."""
        normed = self.norm(queries_BNC)
        masks = torch.einsum("bnc,bchw->bnhw", self.mask_embed(normed), features_BChw)
        return self.classes(normed), masks


def blocked_cells(masks_BNhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells of a map outside each query's mask [B, N, S]; of a mask that holds none of them, no cell is blocked."""
    small = F.interpolate(masks_BNhw.detach().float(), size, mode="bilinear", align_corners=False)
    blocked_BNS = small.flatten(2).sigmoid() < 0.5
    return blocked_BNS & ~blocked_BNS.all(-1, keepdim=True)
