"""The table op and its derivatives, as an autograd Function (compiled.py does the same for torch.compile).

With L_n(x, p) = sum_k p_k f_k^(n)(x) and A_n(x, g)_k = sum_i g_i f_k^(n)(x_i), where each order n has its own tables:

    y = L0(x, p)                                      forward
    dx = g L1(x, p), dp = A0(x, g)                    backward: A0 is the exact adjoint of the interpolant
    dg = a L1(x, p) + L0(x, c)                        double backward, with cotangents a of dx and c of dp
    dx' = g (a L2(x, p) + L1(x, c)), dp' = A1(x, a g)

Elements outside the cells are computed by the functions themselves, as are all higher derivatives. Must not know
kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nasact.mixture.layout import Layout
from nasact.mixture.table import native, plain
from nasact.mixture.table.basis import Basis, Grid, basis
from nasact.mixture.torch_transforms import is_transformed_backward, needs_gradient, separate_variables


@dataclass(frozen=True)
class TabulatedBank:
    """The tabulated candidates of a bank, their grid, and the layout of their weights over the input."""

    grid: Grid
    names: tuple[str, ...]
    layout: Layout

    @property
    def basis(self) -> Basis:
        return basis(self.grid, self.names)


def mix(bank: TabulatedBank, x: Tensor, weights: Tensor) -> Tensor:
    """Compute `sum_k p_k f_k(x)`: x (N, ...) floating point, weights (*layout.shape, K) -> like x.

    Differentiable. Saves only x and the weights for the backward pass.
    """
    if torch.is_grad_enabled() and (x.requires_grad or weights.requires_grad):
        mixed: Tensor = _Mix.apply(bank, x, weights)
        return mixed
    return forward(bank, x, weights)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bank: TabulatedBank, x: Tensor, weights: Tensor) -> Tensor:
        ctx.bank = bank
        ctx.save_for_backward(x, weights)
        return forward(bank, x, weights)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weights = ctx.saved_tensors
        if is_transformed_backward(x, weights, g):
            return None, *_backward_exact(ctx.bank, x, weights, g)
        if torch.is_grad_enabled():  # create_graph: this backward pass will be differentiated too
            return None, *_MixBackward.apply(ctx.bank, x, weights, g)
        return None, *backward(ctx.bank, x, weights, g, with_dp=needs_gradient(weights))


class _MixBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bank: TabulatedBank, x: Tensor, weights: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        ctx.bank = bank
        ctx.save_for_backward(x, weights, g)
        ctx.set_materialize_grads(False)
        return backward(bank, x, weights, g, with_dp=needs_gradient(weights))

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, c: Tensor | None) -> tuple[Any, ...]:
        x, weights, g = ctx.saved_tensors
        if a is None and c is None:
            return None, None, None, None
        tensors = [tensor for tensor in (x, weights, g, a, c) if tensor is not None]
        if torch.is_grad_enabled() or is_transformed_backward(*tensors):
            return None, *double_backward_exact(ctx.bank, x, weights, g, a, c)
        to_g, to_x, to_weights = _double_backward(ctx.bank, x, weights, g, a, c, with_dp=needs_gradient(weights))
        return None, to_x, to_weights, to_g


# ---- without autograd -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """How an input is seen as (outer, rows, inner) and its weights as (rows, K).

    `in_memory_order`: the elements are taken in the order of their memory. With one row of weights any dense memory
    format allows that.
    """

    shape: native.Shape
    in_memory_order: bool

    @classmethod
    def of(cls, x: Tensor, layout: Layout) -> _View:
        if layout.level == "layer":
            shape = (1, 1, x.numel())
        elif layout.level == "neuron":
            shape = (x.shape[0], math.prod(layout.shape), 1)
        else:
            dim = layout.channel_dim % x.dim()
            shape = (math.prod(x.shape[:dim]), x.shape[dim], math.prod(x.shape[dim + 1 :]))
        return cls(shape, x.is_contiguous() or (layout.level == "layer" and _dense(x)))

    def ordered(self, tensor: Tensor, like: Tensor) -> Tensor:
        """`tensor` with its elements in memory in the order in which those of x (`like`) are taken."""
        if not self.in_memory_order or like.is_contiguous():
            return tensor.contiguous()
        if tensor.stride() != like.stride():
            tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
        return tensor

    def empty(self, like: Tensor) -> Tensor:
        """An uninitialised tensor for a result, in the same order."""
        return torch.empty_like(like) if self.in_memory_order else like.new_empty(like.shape)

    def flat(self, ordered: Tensor) -> Tensor:
        """A tensor that `ordered` or `empty` returned, viewed as (outer, rows, inner)."""
        _, rows, inner = self.shape
        return ordered.detach().as_strided(self.shape, (rows * inner, inner, 1))

    def back(self, ordered: Tensor, like: Tensor) -> Tensor:
        """A result in the memory format of x (`like`)."""
        return ordered if self.in_memory_order else torch.empty_like(like).copy_(ordered)


def _dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlaps, in any order: `empty_like` then keeps the order."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(x))


def _rows(weights: Tensor) -> Tensor:
    """The weights as (rows, K), float32."""
    p = weights.detach().float().contiguous()
    return p.unsqueeze(0) if p.dim() == 1 else p.view(-1, p.shape[-1])


def forward(bank: TabulatedBank, x: Tensor, weights: Tensor) -> Tensor:
    """`L0(x, p)` -> like x, without an autograd graph."""
    if not x.numel():
        return torch.empty_like(x)
    view, tables, p = _View.of(x, bank.layout), bank.basis, _rows(weights)
    xs, y = view.ordered(x, x), view.empty(x)
    code = native.library() if native.supports(x) else None
    if code is not None:
        outside = bool(native.forward(code, tables, view.shape, xs, p, y))
    else:
        view.flat(y).copy_(plain.forward(tables, view.flat(xs), p))
        outside = plain.outside(tables, view.flat(xs))
    if outside:
        where = _Outside.of(tables, view.flat(xs), p)
        view.flat(y).view(-1)[where.at] = where.mix(where.x, where.p).to(x.dtype)
    return view.back(y, x)


def backward(
    bank: TabulatedBank, x: Tensor, weights: Tensor, g: Tensor, *, with_dp: bool
) -> tuple[Tensor, Tensor | None]:
    """`g L1(x, p)` like x and `A0(x, g)` like weights (None unless `with_dp`), without an autograd graph."""
    if not x.numel():
        return torch.empty_like(x), torch.zeros_like(weights) if with_dp else None
    view, tables, p = _View.of(x, bank.layout), bank.basis, _rows(weights)
    xs, gs, dx = view.ordered(x, x), view.ordered(g.to(x.dtype), x), view.empty(x)
    dp: Tensor | None
    code = native.library() if native.supports(x) else None
    if code is not None:
        dp = torch.empty_like(p) if with_dp else None
        outside = bool(native.backward(code, tables, view.shape, xs, p, gs, dx, dp))
    else:
        to_x, dp = plain.backward(tables, view.flat(xs), p, view.flat(gs), with_dp=with_dp)
        view.flat(dx).copy_(to_x)
        outside = plain.outside(tables, view.flat(xs))
    if outside:
        where = _Outside.of(tables, view.flat(xs), p)
        with torch.enable_grad():
            x_out, p_out = where.x.requires_grad_(), where.p.requires_grad_()
            y = where.mix(x_out, p_out)
        g_out = view.flat(gs).view(-1)[where.at].to(y.dtype)
        to_x, to_p = torch.autograd.grad(y, (x_out, p_out), g_out, materialize_grads=True)
        view.flat(dx).view(-1)[where.at] = to_x.to(x.dtype)
        where.add(dp, to_p)
    return view.back(dx, x), None if dp is None else dp.view(weights.shape).to(weights.dtype)


def _double_backward(
    bank: TabulatedBank,
    x: Tensor,
    weights: Tensor,
    g: Tensor,
    a: Tensor | None,
    c: Tensor | None,
    *,
    with_dp: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`(dg, dx', dp')` of the module's first lines, without an autograd graph; dp' is None unless `with_dp`."""
    if not x.numel():
        return torch.empty_like(g), torch.empty_like(x), torch.zeros_like(weights) if with_dp else None
    view, tables, p, cot = _View.of(x, bank.layout), bank.basis, _rows(weights), None if c is None else _rows(c)
    xs, gs, dg, dx = view.ordered(x, x), view.ordered(g.to(x.dtype), x), view.empty(x), view.empty(x)
    co = torch.zeros_like(xs) if a is None else view.ordered(a.to(x.dtype), x)
    dp: Tensor | None
    code = native.library() if native.supports(x) else None
    if code is not None:
        dp = torch.empty_like(p) if with_dp else None
        outside = bool(native.double_backward(code, tables, view.shape, xs, p, gs, co, cot, dg, dx, dp))
    else:
        flat_g, flat_a = view.flat(gs), view.flat(co)
        to_g, to_x, dp = plain.double_backward(tables, view.flat(xs), p, flat_g, flat_a, cot, with_dp=with_dp)
        view.flat(dg).copy_(to_g)
        view.flat(dx).copy_(to_x)
        outside = plain.outside(tables, view.flat(xs))
    if outside:
        where = _Outside.of(tables, view.flat(xs), p)
        with torch.enable_grad():
            x_out, p_out = where.x.requires_grad_(), where.p.requires_grad_()
            g_out = view.flat(gs).view(-1)[where.at].to(x_out.dtype).requires_grad_()
            first = torch.autograd.grad(
                where.mix(x_out, p_out), (x_out, p_out), g_out, create_graph=True, materialize_grads=True
            )
            # an output without a cotangent is left out: a cotangent of zero times an inf would be NaN
            cotangents = [None if a is None else view.flat(co).view(-1)[where.at].to(x_out.dtype)]
            cotangents.append(None if cot is None else _select_rows(cot, where.row))
            pairs = [
                (out, cotangent) for out, cotangent in zip(first, cotangents, strict=True) if cotangent is not None
            ]
            to_g, to_x, to_p = torch.autograd.grad(
                [out for out, _ in pairs],
                (g_out, x_out, p_out),
                [cotangent for _, cotangent in pairs],
                materialize_grads=True,
            )
        view.flat(dg).view(-1)[where.at] = to_g.to(x.dtype)
        view.flat(dx).view(-1)[where.at] = to_x.to(x.dtype)
        where.add(dp, to_p)
    return view.back(dg, x), view.back(dx, x), None if dp is None else dp.view(weights.shape).to(weights.dtype)


@dataclass(frozen=True)
class _Outside:
    """The N elements outside the cells, in float32.

    `at` (N,): flat indices; `x` (N,): values; `row` (N,): their rows of weights; `p`: the weights, (N, K), or (1, K)
    where all elements share one row.
    """

    basis: Basis
    at: Tensor
    x: Tensor
    row: Tensor
    p: Tensor

    @classmethod
    def of(cls, tables: Basis, flat: Tensor, p: Tensor) -> _Outside:
        values = flat.reshape(-1).float()
        at = torch.nonzero(~tables.grid.inside(values)).squeeze(1)
        row = at // flat.shape[2] % flat.shape[1]
        return cls(tables, at, values.index_select(0, at), row, _select_rows(p, row))

    def mix(self, x: Tensor, p: Tensor) -> Tensor:
        """The mixture by the functions' own formulas."""
        total = torch.zeros_like(x)
        for function, weight in zip(self.basis.functions, p.unbind(-1), strict=True):
            total = total + weight * function(x)
        return total

    def add(self, to: Tensor | None, rows: Tensor) -> None:
        """Add the elements' gradients of the weights, `rows` like `p`, to `to` (rows, K), in place."""
        if to is not None and to.shape[0] == 1:
            to.add_(rows)
        elif to is not None:
            to.index_add_(0, self.row, rows)


def _select_rows(rows: Tensor, row: Tensor) -> Tensor:
    return rows if rows.shape[0] == 1 else rows.index_select(0, row)


def double_backward_exact(
    bank: TabulatedBank, x: Tensor, weights: Tensor, g: Tensor, a: Tensor | None, c: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Double backward by the functions' own formulas; with grad mode on, differentiable any number of times."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x, weights, g = separate_variables(x, weights, g)
        variables = [tensor for tensor in (x, weights) if tensor.requires_grad]
        first = torch.autograd.grad(_exact(bank, x, weights), variables, g, create_graph=True, materialize_grads=True)
        cotangents = [co for tensor, co in ((x, a), (weights, c)) if tensor.requires_grad]
        pairs = [(out, co) for out, co in zip(first, cotangents, strict=True) if co is not None and out.requires_grad]
        inputs = [tensor for tensor in (x, weights, g) if tensor.requires_grad]
        gradients = iter(
            torch.autograd.grad(
                [out for out, _ in pairs], inputs, [co for _, co in pairs], create_graph=graph, materialize_grads=True
            )
        )
    return tuple(next(gradients) if tensor.requires_grad else None for tensor in (x, weights, g))


def _backward_exact(bank: TabulatedBank, x: Tensor, weights: Tensor, g: Tensor) -> tuple[Tensor | None, ...]:
    """Backward by the functions' own formulas, for a g that torch transforms (batched gradients, forward mode)."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x, weights = separate_variables(x, weights)
        variables = [tensor for tensor in (x, weights) if tensor.requires_grad]
        y = _exact(bank, x, weights)
        gradients = iter(torch.autograd.grad(y, variables, g, create_graph=graph, materialize_grads=True))
    return tuple(next(gradients) if tensor.requires_grad else None for tensor in (x, weights))


def _exact(bank: TabulatedBank, x: Tensor, weights: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for function, weight in zip(bank.basis.functions, weights.to(x.dtype).unbind(-1), strict=True):
        y = y + bank.layout.broadcast(weight, x) * function(x)
    return y
