"""`fused`: one pass over x that keeps x only; the backward pass computes the candidates once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from nasact.mixture.kernels.context import transformed
from nasact.mixture.kernels.record import Choice, Term
from nasact.mixture.kernels.reference import mix
from nasact.mixture.layout import Layout

BLOCK = 1 << 16
"""Elements that pass through all candidates before the next ones come: they and their results stay in the cache."""


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Exact: the candidates' own formulas and gradients, for any dtype and device, betas and coupled functions too.

    On a CPU block by block; `compile` hands the two passes to torch.compile, which on CUDA (`auto`) makes one Triton
    kernel of each. A model's own module (which may draw random numbers) is computed once, in plain torch.
    """

    name: ClassVar[str] = "fused"
    summary: ClassVar[str] = "every candidate by its formula, block by block; keeps x only and computes twice"

    compile: Literal["auto", "always", "never"] = "auto"

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> FusedOp:
        return FusedOp(self, layout)


@dataclass(frozen=True)
class FusedOp:
    kernel: Fused
    layout: Layout

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        return Choice("fused", "as asked for")

    def __call__(self, x: Tensor, weights: Tensor, terms: Sequence[Term]) -> Tensor:
        if torch.compiler.is_compiling() or transformed(x, weights):
            return mix(x, weights, terms, self.layout)
        pure = [k for k, term in enumerate(terms) if term.pure]
        if len(pure) == len(terms):
            return self._pure(x, weights, terms)
        others = [k for k in range(len(terms)) if k not in pure]
        rest = mix(x, weights[..., others], [terms[k] for k in others], self.layout)
        return rest if not pure else rest + self._pure(x, weights[..., pure], [terms[k] for k in pure])

    def _pure(self, x: Tensor, weights: Tensor, terms: Sequence[Term]) -> Tensor:
        static = _Static(tuple((term.name, term.function, len(term.betas)) for term in terms), self.layout)
        compiled = self.kernel.compile == "always" or (self.kernel.compile == "auto" and x.is_cuda)
        betas = (beta for term in terms for beta in term.betas)
        mixed: Tensor = _Fused.apply(static, compiled, x, weights, *betas)
        return mixed


@dataclass(frozen=True)
class _Static:
    """What does not change from call to call: (name, function, number of betas) a term, and the layout."""

    terms: tuple[tuple[str, Callable[..., Tensor], int], ...]
    layout: Layout

    def mix(self, x: Tensor, weights: Tensor, *betas: Tensor) -> Tensor:
        left = iter(betas)
        terms = [Term(name, function, tuple(next(left) for _ in range(count))) for name, function, count in self.terms]
        return mix(x, weights, terms, self.layout)

    def pull_back(self, gradient: Tensor, x: Tensor, weights: Tensor, *betas: Tensor) -> tuple[Tensor, ...]:
        """The gradients of x, the weights and the betas."""
        pulled: tuple[Tensor, ...] = torch.func.vjp(self.mix, x, weights, *betas)[1](gradient)
        return pulled


@lru_cache(maxsize=64)
def _compiled(static: _Static) -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, ...]]]:
    return torch.compile(static.mix, dynamic=True), torch.compile(static.pull_back, dynamic=True)


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of the batch dimension with about BLOCK elements each."""
    each = max(1, BLOCK * x.shape[0] // max(1, x.numel()))
    return (slice(start, start + each) for start in range(0, x.shape[0], each))


def _in_blocks(x: Tensor, layout: Layout) -> bool:
    """Whether x is worth cutting, and its first dimension may be cut: it is not the channels'."""
    return x.device.type == "cpu" and x.dim() > 1 and x.numel() > 2 * BLOCK and layout.channel_dim % x.dim() != 0


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, static: _Static, compiled: bool, x: Tensor, weights: Tensor, *betas: Tensor) -> Tensor:
        ctx.static, ctx.compiled = static, compiled
        ctx.save_for_backward(x, weights, *betas)
        if compiled:
            return _compiled(static)[0](x, weights, *betas)
        if not _in_blocks(x, static.layout):
            return static.mix(x, weights, *betas)
        y = torch.empty_like(x)
        for block in _blocks(x):
            y[block] = static.mix(x[block], weights, *betas)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weights, *betas = ctx.saved_tensors
        static: _Static = ctx.static
        inputs = (x, weights, *betas)
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # create_graph: on the tensors themselves, so that every derivative is there
            asked = [tensor for tensor, need in zip(inputs, wanted, strict=True) if need]
            found = iter(
                torch.autograd.grad(
                    static.mix(*inputs), asked, gradient, create_graph=True, materialize_grads=True, allow_unused=True
                )
            )
            return None, None, *(next(found) if need else None for need in wanted)
        if ctx.compiled:
            pulled = _compiled(static)[1](gradient, *inputs)
        elif not _in_blocks(x, static.layout):
            pulled = _pull_back(static, gradient, inputs)
        else:
            dx = torch.empty_like(x)
            sums: list[Tensor] = []
            for block in _blocks(x):
                dx[block], *others = _pull_back(static, gradient[block], (x[block], weights, *betas))
                sums = [total.add_(part) for total, part in zip(sums, others, strict=True)] if sums else others
            pulled = (dx, *sums)
        return None, None, *(found if need else None for found, need in zip(pulled, wanted, strict=True))


def _pull_back(static: _Static, gradient: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        y = static.mix(*leaves)
    return torch.autograd.grad(y, leaves, gradient, materialize_grads=True, allow_unused=True)
