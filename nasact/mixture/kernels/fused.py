"""`fused`: one pass over x that saves only x; the backward pass computes the candidates a second time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from nasact.errors import MixtureError
from nasact.mixture.kernels.base import KERNELS, Choice, Term, Terms
from nasact.mixture.kernels.reference import mix
from nasact.mixture.layout import Layout
from nasact.mixture.torch_transforms import (
    is_transformed,
    is_transformed_backward,
    separate_variables,
    unsafe_reason,
)

BLOCK = 1 << 16
"""Elements that pass through all candidates before the next block: they and their results stay in the CPU's cache."""


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Exact: the candidates' own formulas and gradients, for any dtype and device, with betas and coupled functions.

    Works block by block on a CPU. `compile` passes the forward and the backward pass to torch.compile: "auto" does so
    on CUDA, where each pass becomes one Triton kernel. A model's own module, which may draw random numbers, is computed
    once, in plain torch.
    """

    name: ClassVar[str] = "fused"
    summary: ClassVar[str] = "every candidate by its formula, block by block; keeps x only and computes twice"

    compile: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        if self.compile not in ("auto", "always", "never"):
            raise MixtureError(f"fused: compile must be auto, always or never, but got {self.compile!r}")

    def prepare(self, names: Sequence[str], layout: Layout, where: str) -> FusedOp:
        return FusedOp(self, layout)


@dataclass(frozen=True)
class FusedOp:
    """The op of `fused` for one bank."""

    kernel: Fused
    layout: Layout

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        unsafe = unsafe_reason()
        return Choice("fused", "as requested") if unsafe is None else Choice("reference", unsafe)

    def __call__(self, x: Tensor, weights: Tensor, terms: Terms) -> Tensor:
        return self.compute(x, weights, terms())

    def compute(self, x: Tensor, weights: Tensor, terms: Sequence[Term]) -> Tensor:
        """Compute the mixture of `terms`, which may be a part of the bank's."""
        betas = (beta for term in terms for beta in term.betas)
        if torch.compiler.is_compiling() or is_transformed(x, weights, *betas):
            return mix(x, weights, terms, self.layout)
        pure = [k for k, term in enumerate(terms) if term.pure]
        if len(pure) == len(terms):
            return self._compute_pure(x, weights, terms)
        others = [k for k in range(len(terms)) if k not in pure]
        rest = mix(x, weights[..., others], [terms[k] for k in others], self.layout)
        if not pure:
            return rest
        total = rest + self._compute_pure(x, weights[..., pure], [terms[k] for k in pure])
        return total if total.dtype == rest.dtype else total.to(rest.dtype)

    def _compute_pure(self, x: Tensor, weights: Tensor, terms: Sequence[Term]) -> Tensor:
        static = _Static(tuple((term.name, term.function, len(term.betas)) for term in terms), self.layout)
        compiled = self.kernel.compile == "always" or (self.kernel.compile == "auto" and x.is_cuda)
        betas = (beta for term in terms for beta in term.betas)
        mixed: Tensor = _Fused.apply(static, compiled, x, weights, *betas)
        return mixed


@dataclass(frozen=True)
class _Static:
    """What stays the same from call to call: (name, function, number of betas) of each term, and the layout."""

    terms: tuple[tuple[str, Callable[..., Tensor], int], ...]
    layout: Layout

    def mix(self, x: Tensor, weights: Tensor, *betas: Tensor) -> Tensor:
        next_betas = iter(betas)
        terms = [
            Term(name, function, tuple(next(next_betas) for _ in range(count))) for name, function, count in self.terms
        ]
        return mix(x, weights, terms, self.layout)

    def pull_back(self, gradient: Tensor, x: Tensor, weights: Tensor, *betas: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of x, the weights and the betas."""
        pulled: tuple[Tensor, ...] = torch.func.vjp(self.mix, x, weights, *betas)[1](gradient)
        return pulled


@lru_cache(maxsize=64)
def _compiled_passes(static: _Static) -> dict[str, Callable[..., Any]]:
    """The forward and the backward pass, compiled at their first call; emptied by `_run_compiled` after a failure."""
    compiled = partial(torch.compile, dynamic=True, isolate_recompiles=True)
    return {"forward": compiled(static.mix), "backward": compiled(static.pull_back)}


_warnings = count()


def _run_compiled(static: _Static, which: str, *tensors: Tensor) -> Any:
    """Run a compiled pass. Return None, after one warning per process, where torch cannot compile it."""
    passes = _compiled_passes(static)
    if which not in passes:
        return None
    try:
        return passes[which](*(tensor.detach() for tensor in tensors))
    except torch.OutOfMemoryError:
        raise
    # Compilers fail in dozens of ways. A mistake of the caller is raised again by plain torch, which runs next.
    except Exception as error:
        passes.clear()
        if next(_warnings) == 0:
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"nasact: fused runs in plain torch, slower: torch.compile fails: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
        return None


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of the batch dimension with about BLOCK elements each."""
    size = max(1, BLOCK * x.shape[0] // max(1, x.numel()))
    return (slice(start, start + size) for start in range(0, x.shape[0], size))


def _works_in_blocks(x: Tensor, layout: Layout) -> bool:
    """Whether x is large enough for blocks, and its first dimension may be cut: it does not hold the channels."""
    return x.device.type == "cpu" and x.dim() > 1 and x.numel() > 2 * BLOCK and layout.channel_dim % x.dim() != 0


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, static: _Static, compiled: bool, x: Tensor, weights: Tensor, *betas: Tensor) -> Tensor:
        ctx.static, ctx.compiled = static, compiled
        ctx.save_for_backward(x, weights, *betas)
        y: Tensor | None = _run_compiled(static, "forward", x, weights, *betas) if compiled else None
        return _mix(static, x, weights, *betas) if y is None else y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        static, inputs = ctx.static, ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        graph = torch.is_grad_enabled()
        if graph or is_transformed_backward(gradient, *inputs):
            # on the saved tensors themselves, which are part of the graph: every higher derivative exists
            with torch.enable_grad():
                inputs = separate_variables(*inputs)
                variables = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
                y = static.mix(*inputs)
                gradients = torch.autograd.grad(
                    y, variables, gradient, create_graph=graph, materialize_grads=True, allow_unused=True
                )
            remaining = iter(gradients)
            return None, None, *(next(remaining) if need else None for need in needed)
        pulled = _run_compiled(static, "backward", gradient, *inputs) if ctx.compiled else None
        if pulled is None:
            pulled = _pull_back(static, gradient, *inputs)
        return None, None, *(found if need else None for found, need in zip(pulled, needed, strict=True))


def _mix(static: _Static, x: Tensor, *others: Tensor) -> Tensor:
    if not _works_in_blocks(x, static.layout):
        return static.mix(x, *others)
    y = torch.empty_like(x)
    for block in _blocks(x):
        y[block] = static.mix(x[block], *others)
    return y


def _pull_back(static: _Static, gradient: Tensor, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    if not _works_in_blocks(x, static.layout):
        return _pull_back_block(static, gradient, x, *others)
    dx = torch.empty_like(x)
    sums: list[Tensor] = []
    for block in _blocks(x):
        dx[block], *parts = _pull_back_block(static, gradient[block], x[block], *others)
        sums = [total.add_(part) for total, part in zip(sums, parts, strict=True)] if sums else parts
    return dx, *sums


def _pull_back_block(static: _Static, gradient: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    with torch.enable_grad():
        y = static.mix(*leaves)
    return torch.autograd.grad(y, leaves, gradient, materialize_grads=True, allow_unused=True)


KERNELS.register(Fused.name, Fused)
