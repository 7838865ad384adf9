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

from nasact.mixture.kernels.context import asked_for, partial, transformed_back
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
        return None, *backward(ctx.task, x, weights, g, weights_too=asked_for(weights))


class _MixBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, task: Task, x: Tensor, weights: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        ctx.task = task
        ctx.save_for_backward(x, weights, g)
        ctx.set_materialize_grads(False)
        return backward(task, x, weights, g, weights_too=asked_for(weights))

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, c: Tensor | None) -> tuple[Any, ...]:
        x, weights, g = ctx.saved_tensors
        if a is None and c is None:
            return None, None, None, None
        if torch.is_grad_enabled() or transformed_back(*(each for each in (x, weights, g, a, c) if each is not None)):
            return None, *third(ctx.task, x, weights, g, a, c)
        to_g, to_x, to_weights = _second(ctx.task, x, weights, g, a, c, weights_too=asked_for(weights))
        return None, to_x, to_weights, to_g


# ---- numbers in, numbers out ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """An input laid out as (outer, rows, inner), its weights as (rows, K)."""

    shape: native.Shape
    in_place: bool
    """Whether that is the order of its memory: one row of weights allows any dense format."""

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
        """`tensor`, its elements in memory in the order that those of x, `like`, are taken in."""
        if not self.in_place or like.is_contiguous():
            return tensor.contiguous()
        if tensor.stride() != like.stride():
            tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
        return tensor

    def empty(self, like: Tensor) -> Tensor:
        """Room for a result, in that order."""
        return torch.empty_like(like) if self.in_place else like.new_empty(like.shape)

    def flat(self, ordered: Tensor) -> Tensor:
        """What is in that order, as (outer, rows, inner)."""
        _, rows, inner = self.shape
        return ordered.detach().as_strided(self.shape, (rows * inner, inner, 1))

    def back(self, ordered: Tensor, like: Tensor) -> Tensor:
        """A result in the memory format of x, `like`."""
        return ordered if self.in_place else torch.empty_like(like).copy_(ordered)


def _dense(x: Tensor) -> bool:
    """Whether x fills its memory without gaps or overlaps, in whatever order: what `empty_like` keeps."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(x))


def _rows(weights: Tensor) -> Tensor:
    """(rows, K), float32."""
    p = weights.detach().float().contiguous()
    return p.unsqueeze(0) if p.dim() == 1 else p.view(-1, p.shape[-1])


def forward(task: Task, x: Tensor, weights: Tensor) -> Tensor:
    """Numbers alone: nothing of it can be differentiated, and so with `backward`."""
    if not x.numel():
        return torch.empty_like(x)
    view, tables, p = _View.of(x, task.layout), task.basis, _rows(weights)
    xs, y = view.ordered(x, x), view.empty(x)
    code = native.library() if native.serves(x) else None
    if code is not None:
        outside = bool(native.forward(code, tables, view.shape, xs, p, y))
    else:
        view.flat(y).copy_(plain.forward(tables, view.flat(xs), p))
        outside = plain.outside(tables, view.flat(xs))
    if outside:
        where = _Outside.of(tables, view.flat(xs), p)
        view.flat(y).view(-1)[where.at] = where.mix(where.x, where.p).to(x.dtype)
    return view.back(y, x)


def backward(task: Task, x: Tensor, weights: Tensor, g: Tensor, *, weights_too: bool) -> tuple[Tensor, Tensor | None]:
    if not x.numel():
        return torch.empty_like(x), torch.zeros_like(weights) if weights_too else None
    view, tables, p = _View.of(x, task.layout), task.basis, _rows(weights)
    xs, gs, dx = view.ordered(x, x), view.ordered(g.to(x.dtype), x), view.empty(x)
    dp: Tensor | None
    code = native.library() if native.serves(x) else None
    if code is not None:
        dp = torch.empty_like(p) if weights_too else None
        outside = bool(native.backward(code, tables, view.shape, xs, p, gs, dx, dp))
    else:
        found, dp = plain.backward(tables, view.flat(xs), p, view.flat(gs), weights_too=weights_too)
        view.flat(dx).copy_(found)
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


def _second(
    task: Task, x: Tensor, weights: Tensor, g: Tensor, a: Tensor | None, c: Tensor | None, *, weights_too: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    if not x.numel():
        return torch.empty_like(g), torch.empty_like(x), torch.zeros_like(weights) if weights_too else None
    view, tables, p, cot = _View.of(x, task.layout), task.basis, _rows(weights), None if c is None else _rows(c)
    xs, gs, dg, dx = view.ordered(x, x), view.ordered(g.to(x.dtype), x), view.empty(x), view.empty(x)
    co = torch.zeros_like(xs) if a is None else view.ordered(a.to(x.dtype), x)
    dp: Tensor | None
    code = native.library() if native.serves(x) else None
    if code is not None:
        dp = torch.empty_like(p) if weights_too else None
        outside = bool(native.second(code, tables, view.shape, xs, p, gs, co, cot, dg, dx, dp))
    else:
        flat_g, flat_a = view.flat(gs), view.flat(co)
        to_g, to_x, dp = plain.second(tables, view.flat(xs), p, flat_g, flat_a, cot, weights_too=weights_too)
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
            # what nobody asked for is left out: times zero, an inf in it would be NaN
            cotangents = [None if a is None else view.flat(co).view(-1)[where.at].to(x_out.dtype)]
            cotangents.append(None if cot is None else _each(cot, where.row))
            reached = [
                (out, cotangent) for out, cotangent in zip(first, cotangents, strict=True) if cotangent is not None
            ]
            to_g, to_x, to_p = torch.autograd.grad(
                [out for out, _ in reached],
                (g_out, x_out, p_out),
                [each for _, each in reached],
                materialize_grads=True,
            )
        view.flat(dg).view(-1)[where.at] = to_g.to(x.dtype)
        view.flat(dx).view(-1)[where.at] = to_x.to(x.dtype)
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
