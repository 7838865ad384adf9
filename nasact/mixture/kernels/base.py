"""The interface of a kernel of the mixture op, and the registry of kernels. Must not know any kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from nasact.errors import MixtureError
from nasact.mixture.layout import Layout
from nasact.options import RecordRegistry


@dataclass(frozen=True)
class Term:
    """One candidate of a bank, ready for an input: `function(x, *betas)`, with betas that broadcast against x.

    `pure`: the result depends on the arguments only, as for all catalogue functions. False for a model's own module,
    which may hold state or draw random numbers. `own`: it is the function that the model applies at this site.
    """

    name: str
    function: Callable[..., Tensor]
    betas: tuple[Tensor, ...] = ()
    pure: bool = True
    own: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, *self.betas)


Terms: TypeAlias = Callable[[], Sequence[Term]]
"""Returns the K candidates of a bank. A function, so that a table, which needs no terms, does not pay for them."""


@dataclass(frozen=True)
class Choice:
    """The kernel that computes a mixture, and why.

    `untabulated`: the candidates that the table leaves to plain torch, as pairs (name, reason).
    """

    kernel: str
    reason: str
    untabulated: tuple[tuple[str, str], ...] = ()

    @property
    def why(self) -> str:
        """All reasons in one line."""
        return "; ".join((self.reason, *(f"{name} not tabulated: {reason}" for name, reason in self.untabulated)))

    def __str__(self) -> str:
        return f"{self.kernel}: {self.why}"


class Op(Protocol):
    """A kernel that is prepared for one bank. It can be copied, pickled and called from several threads.

    The result has the shape, dtype and memory format of x, and is differentiable as many times as with `reference`.
    Where the model's own function is computed in plain torch, the result has its dtype (autocast may change it).
    Where torch transforms the call (vmap, jvp, export, ...), every op computes in plain torch.
    """

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        """Compute the mixture: x (N, ...), weights (*layout.shape, K), the bank's K terms -> like x."""
        ...

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        """Return which kernel computes inputs of this device and dtype, and why."""
        ...


class Kernel(Protocol):
    """A way to compute `sum_k p_k f_k(x)`: a frozen record of hyperparameters."""

    name: ClassVar[str]
    summary: ClassVar[str]

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> Op:
        """Return the op for the bank `names`; raise MixtureError, naming the site `where`, if the bank does not fit."""
        ...


KERNELS: RecordRegistry[Kernel] = RecordRegistry("kernel", "nasact list kernels")


def as_kernel(kernel: str | Kernel) -> Kernel:
    """Return `kernel` itself, or the kernel of that name with default hyperparameters; UnknownName or MixtureError."""
    if isinstance(kernel, str):
        return KERNELS.get(kernel)()
    if isinstance(kernel, type) or not hasattr(kernel, "prepare"):
        raise MixtureError(
            f"a kernel is one of {', '.join(KERNELS.names())} or a record such as Table(knots=2049), but got {kernel!r}"
        )
    return kernel
