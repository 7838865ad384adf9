"""The table op with its derivatives, as an autograd Function (compiled.py: the same for torch.compile).

With L_n(x, p) = sum_k p_k f_k^(n)(x) and A_n(x, g)_k = sum_i g_i f_k^(n)(x_i), each tabulated for itself:

    y = L0(x, p)                                      forward
    dx = g L1(x, p), dp = A0(x, g)                    backward: A0 is the exact adjoint of the interpolant
    dg = a L1(x, p) + L0(x, c)                        backward of that, with cotangents a of dx and c of dp
    dx' = g (a L2(x, p) + L1(x, c)), dp' = A1(x, a g)

What lies outside the cells is computed by the functions themselves, as are derivatives of a higher order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nasact.mixture.kernels.context import partial, transformed_back
from nasact.mixture.layout import Layout
from nasact.mixture.table import native, plain
from nasact.mixture.table.basis import Basis, Grid, basis


@dataclass(frozen=True)
class Task:
    """The bank's tabulated candidates, on which grid, and how their weights lie over the input."""

    grid: Grid
    names: tuple[str, ...]
    layout: Layout

    @property
    def basis(self) -> Basis:
        return basis(self.grid, self.names)


def mix(task: Task, x: Tensor, weights: Tensor) -> Tensor:
    """`sum_k p_k f_k(x)`: x (N, ...) floating, weights (*layout.shape, K) -> like x. Keeps x (and the weights) only."""
    if torch.is_grad_enabled() and (x.requires_grad or weights.requires_grad):
        mixed: Tensor = _Mix.apply(task, x, weights)
        return mixed
    return forward(task, x, weights)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, task: Task, x: Tensor, weights: Tensor) -> Tensor:
        ctx.task = task
        ctx.save_for_backward(x, weights)
        return forward(task, x, weights)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weights = ctx.saved_tensors
        if transformed_back(x, weights, g):
            return None, *_first(ctx.task, x, weights, g)
        if torch.is_grad_enabled():  # create_graph: this backward pass is to be differentiated too
            return None, *_MixBackward.apply(ctx.task, x, weights, g)
        return None, *backward(ctx.task, x, weights, g, weights_too=ctx.needs_input_grad[2])


class _MixBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, task: Task, x: Tensor, weights: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        ctx.task = task
        ctx.save_for_backward(x, weights, g)
        ctx.set_materialize_grads(False)
        return backward(task, x, weights, g, weights_too=weights.requires_grad)

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, c: Tensor | None) -> tuple[Any, ...]:
        x, weights, g = ctx.saved_tensors
        if a is None and c is None:
            return None, None, None, None
        if torch.is_grad_enabled() or transformed_back(*(each for each in (x, weights, g, a, c) if each is not None)):
            return None, *third(ctx.task, x, weights, g, a, c)
        to_g, to_x, to_weights = _second(ctx.task, x, weights, g, a, c, weights_too=ctx.needs_input_grad[2])
        return None, to_x, to_weights, to_g


# ---- numbers in, numbers out ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """An input laid out as (outer, rows, inner), its weights as (rows, K)."""

    shape: tuple[int, int, int]
    as_it_lies: bool
    """Whether the elements are taken in the order of memory, which one row of weights allows in any dense format."""

    @classmethod
    def of(cls, x: Tensor, layout: Layout) -> _View:
        if layout.level == "layer":
            return cls((1, 1, x.numel()), True)
        if layout.level == "neuron":
            return cls((x.shape[0], math.prod(layout.shape), 1), False)
        dim = layout.channel_dim % x.dim()
        return cls((math.prod(x.shape[:dim]), x.shape[dim], math.prod(x.shape[dim + 1 :])), False)

    def flat(self, tensor: Tensor, like: Tensor) -> Tensor:
        """`tensor` as (outer, rows, inner), its elements in the order that those of x, `like`, are taken in."""
        if self.as_it_lies and not like.is_contiguous():
            if _dense(like):
                if tensor.stride() != like.stride():
                    tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
                return tensor.as_strided(self.shape, (tensor.numel(), tensor.numel(), 1))
            return tensor.contiguous().view(self.shape)
        return tensor.contiguous().view(self.shape)

    def back(self, flat: Tensor, like: Tensor) -> Tensor:
        """A result (outer, rows, inner) in the shape and memory format of x, `like`."""
        if like.is_contiguous():
            return flat.view(like.shape)
        if self.as_it_lies and _dense(like):
            return flat.as_strided(like.shape, like.stride())
        return torch.empty_like(like).copy_(flat.view(like.shape))


def _dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlaps, in whatever order: what `empty_like` keeps."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(x))


def _rows(weights: Tensor) -> Tensor:
    return weights.detach().float().reshape(-1, weights.shape[-1]).contiguous()


def forward(task: Task, x: Tensor, weights: Tensor) -> Tensor:
    """Numbers alone: nothing of it can be differentiated, and so with `backward`."""
    if not x.numel():
        return torch.empty_like(x)
    view, p = _View.of(x, task.layout), _rows(weights)
    flat = view.flat(x.detach(), x)
    code = native.library() if native.serves(x) else None
    if code is not None:
        y = x.new_empty(view.shape)
        outside = native.forward(code, task.basis, flat, p, y)
    else:
        y, outside = plain.forward(task.basis, flat, p), plain.outside(task.basis, flat)
    if outside:
        where = _Outside.of(task.basis, flat, p)
        y.view(-1)[where.at] = where.mix(where.x, where.p).to(x.dtype)
    return view.back(y, x)


def backward(task: Task, x: Tensor, weights: Tensor, g: Tensor, *, weights_too: bool) -> tuple[Tensor, Tensor | None]:
    if not x.numel():
        return torch.empty_like(x), torch.zeros_like(weights) if weights_too else None
    view, p = _View.of(x, task.layout), _rows(weights)
    flat, flat_g = view.flat(x.detach(), x), view.flat(g.detach().to(x.dtype), x)
    dp: Tensor | None
    code = native.library() if native.serves(x) else None
    if code is not None:
        dx, dp = x.new_empty(view.shape), torch.empty_like(p) if weights_too else None
        outside = native.backward(code, task.basis, flat, p, flat_g, dx, dp)
    else:
        dx, dp = plain.backward(task.basis, flat, p, flat_g, weights_too=weights_too)
        outside = plain.outside(task.basis, flat)
    if outside:
        where = _Outside.of(task.basis, flat, p)
        with torch.enable_grad():
            xs, ps = where.x.requires_grad_(), where.p.requires_grad_()
            y = where.mix(xs, ps)
        to_x, to_p = torch.autograd.grad(y, (xs, ps), flat_g.view(-1)[where.at].to(y.dtype), materialize_grads=True)
        dx.view(-1)[where.at] = to_x.to(x.dtype)
        where.add(dp, to_p)
    return view.back(dx, x), None if dp is None else dp.view(weights.shape).to(weights.dtype)


def _second(
    task: Task, x: Tensor, weights: Tensor, g: Tensor, a: Tensor | None, c: Tensor | None, *, weights_too: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    if not x.numel():
        return torch.empty_like(g), torch.empty_like(x), torch.zeros_like(weights) if weights_too else None
    view, p, cot = _View.of(x, task.layout), _rows(weights), None if c is None else _rows(c)
    flat, flat_g = view.flat(x.detach(), x), view.flat(g.detach(), x)
    flat_a = torch.zeros_like(flat) if a is None else view.flat(a.detach(), x)
    dp: Tensor | None
    code = native.library() if native.serves(x) else None
    if code is not None:
        dg, dx = x.new_empty(view.shape), x.new_empty(view.shape)
        dp = torch.empty_like(p) if weights_too else None
        outside = native.second(code, task.basis, flat, p, flat_g, flat_a, cot, dg, dx, dp)
    else:
        dg, dx, dp = plain.second(task.basis, flat, p, flat_g, flat_a, cot, weights_too=weights_too)
        outside = plain.outside(task.basis, flat)
    if outside:
        where = _Outside.of(task.basis, flat, p)
        with torch.enable_grad():
            xs, ps = where.x.requires_grad_(), where.p.requires_grad_()
            gs = flat_g.view(-1)[where.at].to(xs.dtype).requires_grad_()
            first = torch.autograd.grad(where.mix(xs, ps), (xs, ps), gs, create_graph=True, materialize_grads=True)
            # what nobody asked for is left out: times zero, an inf in it would be NaN
            cotangents = [None if a is None else flat_a.view(-1)[where.at].to(xs.dtype)]
            cotangents.append(None if cot is None else _each(cot, where.row))
            reached = [(out, co) for out, co in zip(first, cotangents, strict=True) if co is not None]
            to_g, to_x, to_p = torch.autograd.grad(
                [out for out, _ in reached], (gs, xs, ps), [co for _, co in reached], materialize_grads=True
            )
        dg.view(-1)[where.at], dx.view(-1)[where.at] = to_g.to(x.dtype), to_x.to(x.dtype)
        where.add(dp, to_p)
    return view.back(dg, x), view.back(dx, x), None if dp is None else dp.view(weights.shape).to(weights.dtype)


@dataclass(frozen=True)
class _Outside:
    """The elements that no cell holds: where they are, what they are, their rows of weights (one, if all share it).

    In float32.
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
        return cls(tables, at, values.index_select(0, at), row, _each(p, row))

    def mix(self, x: Tensor, p: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for function, weight in zip(self.basis.functions, p.unbind(-1), strict=True):
            total = total + weight * function(x)
        return total

    def add(self, to: Tensor | None, rows: Tensor) -> None:
        if to is not None and to.shape[0] == 1:
            to.add_(rows)
        elif to is not None:
            to.index_add_(0, self.row, rows)


def _each(rows: Tensor, row: Tensor) -> Tensor:
    return rows if rows.shape[0] == 1 else rows.index_select(0, row)


def third(
    task: Task, x: Tensor, weights: Tensor, g: Tensor, a: Tensor | None, c: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The backward pass of the backward pass by the functions themselves; with a graph, any order from there on."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x, weights, g = partial(x, weights, g)
        asked = [tensor for tensor in (x, weights) if tensor.requires_grad]
        first = torch.autograd.grad(_exact(task, x, weights), asked, g, create_graph=True, materialize_grads=True)
        cotangents = [co for tensor, co in ((x, a), (weights, c)) if tensor.requires_grad]
        pairs = [(out, co) for out, co in zip(first, cotangents, strict=True) if co is not None and out.requires_grad]
        inputs = [tensor for tensor in (x, weights, g) if tensor.requires_grad]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in pairs], inputs, [co for _, co in pairs], create_graph=graph, materialize_grads=True
            )
        )
    return tuple(next(found) if tensor.requires_grad else None for tensor in (x, weights, g))


def _first(task: Task, x: Tensor, weights: Tensor, g: Tensor) -> tuple[Tensor | None, ...]:
    """The backward pass by the functions themselves, for a g that is more than numbers (batched, in forward mode)."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x, weights = partial(x, weights)
        asked = [tensor for tensor in (x, weights) if tensor.requires_grad]
        y = _exact(task, x, weights)
        found = iter(torch.autograd.grad(y, asked, g, create_graph=graph, materialize_grads=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in (x, weights))


def _exact(task: Task, x: Tensor, weights: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for function, weight in zip(task.basis.functions, weights.to(x.dtype).unbind(-1), strict=True):
        y = y + task.layout.broadcast(weight, x) * function(x)
    return y
