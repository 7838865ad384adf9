"""How alphas are shared over an input: one vector a site (`layer`), one a channel, or one a unit (`neuron`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nasact.errors import MixtureError, did_you_mean

LEVELS = ("layer", "channel", "neuron")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the entries of a per-level tensor belong in an input (N, ...).

    `shape` is () for `layer`, (C,) for `channel`, and the input's shape without its batch dimension for `neuron`;
    `channel_dim` the dimension of the input that holds the channels (also the one a softmax candidate couples).
    """

    level: str = "layer"
    shape: tuple[int, ...] = ()
    channel_dim: int = 1

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise MixtureError(
                f"unknown level {self.level!r}: expected one of {', '.join(LEVELS)}.{did_you_mean(self.level, LEVELS)}"
            )

    def check(self, x: Tensor, where: str) -> None:
        """MixtureError naming `where` unless an input like `x` fits this layout."""
        if self.level == "channel":
            least = max(2, self.channel_dim + 1, -self.channel_dim)
            if x.dim() < least:
                raise MixtureError(
                    f"{where}: level 'channel' needs an input of at least {least} dimensions, "
                    f"but got shape {tuple(x.shape)}"
                )
            if x.shape[self.channel_dim] != self.shape[0]:
                raise MixtureError(
                    f"{where}: level 'channel' has {self.shape[0]} channels at dimension {self.channel_dim}, "
                    f"but got shape {tuple(x.shape)}"
                )
        if self.level == "neuron" and not x.dim():
            raise MixtureError(f"{where}: level 'neuron' needs an input of at least 1 dimension, but got shape ()")
        if self.level == "neuron" and tuple(x.shape[1:]) != self.shape:
            raise MixtureError(
                f"{where}: level 'neuron' has units of shape {self.shape}, but got an input of shape {tuple(x.shape)}"
            )

    def broadcast(self, values: Tensor, x: Tensor) -> Tensor:
        """`values` of shape `self.shape`, viewed so that they broadcast against `x`."""
        if self.level == "layer":
            return values
        if self.level == "neuron":
            return values.unsqueeze(0)
        view = [1] * x.dim()
        view[self.channel_dim] = self.shape[0]
        return values.view(view)

    def feature_dim(self, x: Tensor) -> int:
        """The dimension that a function coupling features (softmax) works on."""
        return self.channel_dim if x.dim() > 1 else -1
