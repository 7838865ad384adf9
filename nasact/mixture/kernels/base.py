"""What a kernel of the mixture op takes and promises. Knows no kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from nasact.mixture.layout import Layout

ORIGINAL = "original"
"""The name, in a bank or a genotype, of the function that the model itself has at a site, whatever that is."""


@dataclass(frozen=True)
class Term:
    """One candidate of a bank, ready for an input: `function(x, *betas)`, betas broadcast against x.

    `pure`: the function is the catalogue's, a value of its arguments alone; a model's own module may not be.
    """

    name: str
    function: Callable[..., Tensor]
    betas: tuple[Tensor, ...] = ()
    pure: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, *self.betas)


Terms: TypeAlias = Callable[[], Sequence[Term]]
"""The K candidates of a bank, made ready when they are called for: a table needs none of them."""


@dataclass(frozen=True)
class Choice:
    """What computes a mixture and why; `beside`: what the table leaves to plain torch, with the reason for each."""

    kernel: str
    reason: str
    beside: tuple[tuple[str, str], ...] = ()

    @property
    def why(self) -> str:
        """The reasons in one line."""
        return "; ".join((self.reason, *(f"{name} beside it: {reason}" for name, reason in self.beside)))

    def __str__(self) -> str:
        return f"{self.kernel}: {self.why}"


class Op(Protocol):
    """A kernel made ready for one bank: it may be copied, pickled and called from several threads.

    The result has the shape, dtype and memory format of x, and is differentiable as often as `reference`'s is. Where
    torch transforms the call (vmap, jvp, export, ...) every op computes in plain torch.
    """

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        """x (N, ...), weights (*layout.shape, K), the bank's K terms -> like x."""
        ...

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        """What computes inputs like these, and why."""
        ...


class Kernel(Protocol):
    """A way to compute `sum_k p_k f_k(x)`: a frozen record of hyperparameters."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> Op:
        """The op for the bank `names`; MixtureError naming the site `where` if this kernel cannot serve it."""
        ...
