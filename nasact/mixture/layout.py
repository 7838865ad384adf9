"""How an input shares alphas: one vector per site (`layer`), per channel (`channel`) or per unit (`neuron`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nasact.errors import MixtureError, did_you_mean

LEVELS = ("layer", "channel", "neuron")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a tensor with one entry per layer, channel or unit broadcasts over an input (N, ...).

    `shape`: () for `layer`, (C,) for `channel`, and the input's shape without its batch dimension for `neuron`.
    `channel_dim`: the dimension of the input that holds the channels; a softmax candidate couples along it.
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
        """Raise MixtureError, which names `where`, if the shape of `x` does not fit this layout."""
        if self.level == "channel":
            minimum = max(2, self.channel_dim + 1, -self.channel_dim)
            if x.dim() < minimum:
                raise MixtureError(
                    f"{where}: level 'channel' needs an input of at least {minimum} dimensions, "
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
        """A view of `values`, which have the shape `self.shape`, that broadcasts against `x`."""
        if self.level == "layer":
            return values
        if self.level == "neuron":
            return values.unsqueeze(0)
        view = [1] * x.dim()
        view[self.channel_dim] = self.shape[0]
        return values.view(view)

    def feature_dim(self, x: Tensor) -> int:
        """The dimension of `x` along which a function such as softmax couples features."""
        return self.channel_dim if x.dim() > 1 else -1
