"""A small vision transformer with gelu in its dense layers, for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasact.errors import ModelError
from nasact.tasks.models.base import ModelRecord, register_model
from nasact.tasks.models.image_shapes import Shape, require_image_shape
from nasact.tasks.models.option_types import Count, Fraction


class EncoderBlock(nn.Module):
    """Attention, then two dense layers; each has a LayerNorm before it and a shortcut around it."""

    def __init__(self, units: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(units)
        self.attention = nn.MultiheadAttention(units, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(units)
        self.dense1 = nn.Linear(units, 2 * units)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(2 * units, units)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm1(x)
        # need_weights=True avoids the fused attention, which has no second derivative
        attended, _ = self.attention(inner, inner, inner, need_weights=True)
        x = x + attended
        out: Tensor = x + self.dense2(self.dropout(self.activation(self.dense1(self.norm2(x)))))
        return out


class TinyViT(nn.Module):
    """Embedded patches (tokens), encoder blocks, the mean over the tokens, and a linear head."""

    def __init__(
        self, channels: int, tokens: int, classes: int, patch: int, units: int, heads: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, units, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens, units))
        self.blocks = nn.Sequential(*(EncoderBlock(units, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(units)
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        out: Tensor = self.head(self.norm(self.blocks(tokens)).mean(dim=1))
        return out


def tiny_vit(
    *,
    input_shape: Shape,
    classes: int,
    patch: Count = 4,
    units: Count = 48,
    heads: Count = 3,
    depth: Count = 2,
    dropout: Fraction = 0.0,
) -> nn.Module:
    """`depth` encoder blocks of `units` units on patches of `patch` x `patch` pixels."""
    channels, height, width = require_image_shape("tiny_vit", input_shape)
    if height % patch or width % patch:
        raise ModelError(
            f"model 'tiny_vit': the sides of the images must be multiples of patch={patch}, but are {height} x {width}"
        )
    if units % heads:
        raise ModelError(f"model 'tiny_vit': units must be a multiple of heads, but got units={units}, heads={heads}")
    tokens = (height // patch) * (width // patch)
    return TinyViT(channels, tokens, classes, patch, units, heads, depth, dropout)


register_model(
    ModelRecord(
        name="tiny_vit",
        build=tiny_vit,
        description="small vision transformer, 4 x 4 patches",
        source="arXiv:2010.11929, made small",
        inputs="images with sides that are multiples of the patch",
        activation="gelu",
    )
)
