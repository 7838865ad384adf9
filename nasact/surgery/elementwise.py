"""What a callable of one tensor computes, found by running it: whether it is an activation, and which one.

Every run uses a copy of the callable, inputs of its own on the CPU, and generators whose states are restored. Knows the
catalogue; must not know sites or how they are replaced.
"""

from __future__ import annotations

import copy
import io
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.random import mtrand
from torch import Tensor, nn
from torch.nn import functional as F

from nasact import activations
from nasact.activations import Candidate
from nasact.errors import error_line
from nasact.reserved_names import ORIGINAL
from nasact.surgery.sample_points import sample_points

Kind = Literal["activation", "linear", "own gradient", "not elementwise", "random", "fails"]
TensorFunction = Callable[[Tensor], Tensor]

# Beyond this, a handwritten formula may overflow (tanh by exponentials is nan in float32 from 89 on): where one of two
# functions is not finite, they are not compared there.
_FINITE_UP_TO = 30.0


@dataclass(frozen=True)
class Recognition:
    """What a callable computes.

    `kind`: "activation" for a fixed function of each element that is not linear and whose gradient is that of its
    values. "fails" is also the kind of a callable that cannot be run or judged: one with parameters or buffers, or one
    that returns no floating-point tensor; `reason` says which.
    `function`: for an activation the name of the first catalogue function that equals it, or "original" if none does;
    else empty. `reason`: for the other kinds one phrase for a message, such as "it is linear"; else empty.
    """

    kind: Kind
    function: str = ""
    reason: str = ""


class _Rejected(Exception):
    """The callable is no activation, for this reason."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = kind
        self.reason = reason


def recognise(function: TensorFunction) -> Recognition:
    """Find out what `function` computes by running it about 15 times on some 2,000 points between -100 and 100.

    `function`: a plain function, a module without parameters and buffers, or a bound method of such a module. Of a
    module a copy is run, in train and in eval mode, without the module's own hooks; a module whose children have hooks
    is not run. The function may work in place.

    It runs in float64, or in float32 if it refuses float64. For a function that computes in float32 inside, the
    tolerances are wider. A function that rounds to 16 bits inside counts as one with its own gradient, because the
    rounding has none. Two functions are not compared beyond -30 and 30 where one of them is not finite.

    Never raises for a fault of `function`. The generators of torch, Python and numpy and the grad mode are restored.
    """
    with _isolated() as drawn:
        try:
            recognition = _recognise(function)
        except _Rejected as rejected:
            recognition = Recognition(rejected.kind, "", rejected.reason)
        if recognition.kind != "fails" and drawn():
            recognition = Recognition("random", "", "it draws random numbers")
    return recognition


def _recognise(function: TensorFunction) -> Recognition:
    called, module = _own_copy(function)
    if module is not None:
        _set_mode(module, training=True)
    run, values, slopes = _first_run(called)
    _check_repeatable(run, values)
    _check_elementwise(run, values)
    if module is not None:
        _set_mode(module, training=False)
        if not _close(run(sample_points().points), values, 1e-6).all():
            raise _Rejected("not elementwise", "its values differ between train and eval mode")
    single = run.dtype == torch.float32 or _computes_in_single_precision(values, slopes)
    _check_gradient(run, values, slopes, single)
    _check_nonlinear(values, 1e-5 if single else 1e-9)
    return Recognition("activation", _catalogue_name(values, 1e-5 if single else 1e-6))


# --- the callable and its surroundings


def _own_copy(function: TensorFunction) -> tuple[TensorFunction, nn.Module | None]:
    """A copy of `function` to call, and the copied module that it belongs to, if any."""
    owner = function.__self__ if isinstance(function, types.MethodType) else function
    if isinstance(owner, nn.Module):
        if any(True for own in (owner.parameters(), owner.buffers()) for _ in own):
            raise _Rejected("fails", "it has parameters or buffers of its own")
        if any(_has_hooks(module) for module in owner.modules() if module is not owner):
            raise _Rejected("fails", "a module in it has hooks")
    if isinstance(function, torch.jit.ScriptFunction):  # has no state, and cannot be copied
        return function, None
    try:
        copied = copy.deepcopy(function)
    except Exception as error:
        raise _Rejected("fails", f"it cannot be copied: {error_line(error, 100)}") from None
    if isinstance(copied, nn.Module):
        # forward, because hooks may have effects elsewhere; a class with a `__call__` of its own is called
        return copied.forward if type(copied).__call__ is nn.Module.__call__ else copied, copied
    owner = copied.__self__ if isinstance(copied, types.MethodType) else None
    return copied, owner if isinstance(owner, nn.Module) else None


def _set_mode(module: nn.Module, training: bool) -> None:
    try:
        module.train(training)
    except Exception as error:
        raise _Rejected("fails", f"its mode cannot be set: {error_line(error, 100)}") from None


def _has_hooks(module: nn.Module) -> bool:
    """Whether the module has hooks that run in a forward or backward pass."""
    return any(hooks for name, hooks in vars(module).items() if "ward_" in name and "hooks" in name)


@contextmanager
def _isolated() -> Iterator[Callable[[], bool]]:
    """Inside the block gradients are recorded, the default device is the CPU, and warnings and output are suppressed.

    Yields a function that says whether random numbers were drawn in the block. Their generators are restored.
    """
    python, numpy, torch_cpu = random.getstate(), mtrand.get_state(legacy=False), torch.get_rng_state()
    cuda: list[Tensor] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def drawn() -> bool:
        now = mtrand.get_state(legacy=False)
        return not (
            torch.equal(torch.get_rng_state(), torch_cpu)
            and random.getstate() == python
            and all(np.array_equal(now["state"][key], value) for key, value in numpy["state"].items())
            and now["has_gauss"] == numpy["has_gauss"]
            and all(
                torch.equal(a, b) for a, b in zip(torch.cuda.get_rng_state_all() if cuda else [], cuda, strict=True)
            )
        )

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.autograd.set_detect_anomaly(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            yield drawn
        finally:
            random.setstate(python)
            mtrand.set_state(numpy)
            torch.set_rng_state(torch_cpu)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)


# --- runs


@dataclass(frozen=True)
class _Run:
    """Runs a callable on float64 points, given as `dtype` in a shape that the callable accepts."""

    function: TensorFunction
    dtype: torch.dtype
    shape: tuple[int, ...]

    def __call__(self, points: Tensor) -> Tensor:
        """The values at at most P points (1 dimension), as float64."""
        padded = torch.cat([points, points.new_zeros(len(sample_points().points) - len(points))])
        return _output(self.function, padded.to(self.dtype).reshape(self.shape)).flatten()[: len(points)]


def _called(function: TensorFunction, x: Tensor) -> Tensor:
    """function(x), checked to be a tensor of the shape of `x` in single or double precision."""
    shape, dtype = x.shape, x.dtype
    try:
        y: object = function(x)
    except (Exception, SystemExit) as error:
        raise _Rejected("fails", f"it fails: {error_line(error, 100)}") from None
    if not isinstance(y, Tensor):
        raise _Rejected("fails", f"it returns {type(y).__name__}, not a tensor")
    if y.device.type != "cpu" or y.layout != torch.strided or y.dtype not in (torch.float32, torch.float64):
        got = f"{'' if y.layout == torch.strided else 'sparse '}{y.dtype} on {y.device}"
        raise _Rejected("fails", f"it returns {got} for {dtype} on cpu")
    if y.shape != shape:
        raise _Rejected("not elementwise", "it changes the shape of its input")
    return y


def _output(function: TensorFunction, x: Tensor) -> Tensor:
    """A float64 copy of function(x); `x` may be overwritten."""
    return _called(function, x).detach().to(torch.float64, copy=True)


def _first_run(function: TensorFunction) -> tuple[_Run, Tensor, Tensor]:
    """A dtype and a shape that `function` accepts; its values and autograd's slopes at all points, as float64."""
    grid = sample_points()
    failed: _Rejected | None = None
    for dtype in (torch.float64, torch.float32):
        for shape in grid.shapes:
            leaf = grid.points.to(dtype, copy=True).reshape(shape).requires_grad_()
            try:
                y = _called(function, leaf.clone())
            except _Rejected as rejected:
                if rejected.kind != "fails":
                    raise
                failed = rejected
                continue
            values = y.detach().to(torch.float64, copy=True).flatten()
            return _Run(function, dtype, shape), values, _slopes(y, leaf)
    assert failed is not None
    raise failed


def _slopes(y: Tensor, leaf: Tensor) -> Tensor:
    weights = sample_points().weights
    gradient = None
    if y.requires_grad:
        try:
            # a sum, because gradients given as grad_outputs make torch import sympy (2.14: half a second)
            weighted = (y * weights.to(y.dtype).reshape(y.shape)).sum()
            (gradient,) = torch.autograd.grad(weighted, leaf, allow_unused=True)
        except (Exception, SystemExit) as error:
            raise _Rejected("fails", f"its backward pass fails: {error_line(error, 100)}") from None
    return torch.zeros_like(weights) if gradient is None else gradient.double().flatten() / weights


# --- the checks, each of which raises _Rejected


def _close(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    return torch.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def _check_repeatable(run: _Run, values: Tensor) -> None:
    given = sample_points().points.to(run.dtype, copy=True).reshape(run.shape)
    again = _output(run.function, given)
    if not _close(again.flatten(), values, 0.0).all():
        raise _Rejected("random", "two runs on the same input differ")
    left = given.detach().double()
    if not (
        torch.equal(left.flatten(), sample_points().points.to(run.dtype).double()) or _close(left, again, 1e-6).all()
    ):
        raise _Rejected("fails", "it overwrites its input with other values than its result")


def _check_elementwise(run: _Run, values: Tensor) -> None:
    points = sample_points().points.to(run.dtype)
    for positions in sample_points().regroupings:
        try:
            regrouped = _output(run.function, points[positions])
        except _Rejected as rejected:
            if rejected.kind == "fails":  # it needs another number of dimensions
                continue
            raise
        if not _close(regrouped, values[positions], 1e-5).all():
            raise _Rejected("not elementwise", "its outputs depend on more than one element of its input")


def _one_sided_slopes(x: Tensor, y: Tensor) -> Tensor:
    slopes: Tensor = y.diff(dim=0) / x.diff(dim=0)
    return slopes


def _second_differences(x: Tensor, y: Tensor) -> Tensor:
    left, right = _one_sided_slopes(x, y)
    differences: Tensor = ((right - left) * (x[2] - x[0])).abs()
    return differences.nan_to_num(posinf=0.0)


def _computes_in_single_precision(values: Tensor, slopes: Tensor) -> bool:
    """Whether steps of about 1e-6 show the rounding of float32, or a coarser one."""
    x, y = sample_points().around(sample_points().points), sample_points().around(values)
    noisy = _second_differences(x, y) > 2e-10 * (x[1].abs() + y[1].abs())
    still = (y[0] == y[1]) & (y[1] == y[2]) & (slopes[: x.shape[1]].abs() > 1e-3)
    return int((noisy | still)[x[1].abs() > 0.05].sum()) >= 3  # one or two may be kinks


def _check_gradient(run: _Run, values: Tensor, slopes: Tensor, single: bool) -> None:
    grid = sample_points()
    x, y, slopes = grid.around(grid.points), grid.around(values), slopes[: grid.slope_count]
    if run.dtype == torch.float64 and _slopes_agree(x, y, slopes, 1e-4, torch.zeros_like(slopes)):
        return
    if single:
        order = x[1].argsort()
        noise = torch.empty_like(slopes)
        noise[order] = F.max_pool1d(_second_differences(x, y)[order][None], 33, stride=1, padding=16)[0]
        step = 1e-3 * x[1].abs().clamp(0.3, 10.0)
        x = torch.stack([x[1] - step, x[1], x[1] + step]).to(run.dtype).double()
        y = run(x.flatten()).reshape(x.shape)
        if _slopes_agree(x, y, slopes, 2e-3, noise):
            return
    reason = "its gradient is not that of its values (a straight-through estimator?)"
    raise _Rejected("own gradient", reason if bool((slopes != 0).any()) else "no gradient flows through it")


def _slopes_agree(x: Tensor, y: Tensor, slopes: Tensor, tolerance: float, noise: Tensor) -> bool:
    """Whether `slopes` (n) are those of the values `y` (3, n) at ascending points `x` (3, n), at the middle ones.

    At a kink every slope between those of both sides agrees, at a jump every slope. `noise` (n): an error of `y`.
    """
    left, right = _one_sided_slopes(x, y)
    slope = (y[2] - y[0]) / (x[2] - x[0])
    allowed = tolerance * (1 + slope.abs()) + (right - left).abs() + 4 * noise / (x[2] - x[0])
    comparable = left.isfinite() & right.isfinite() & (slopes.isfinite() | (x[1].abs() <= _FINITE_UP_TO))
    return bool((((slopes - slope).abs() <= allowed) | ~comparable).all())


def _check_nonlinear(values: Tensor, tolerance: float) -> None:
    grid = sample_points()
    x, y = grid.points[: grid.value_count], values[: grid.value_count]
    offset, low, high = grid.line_at(values)
    line = (high - low) / 200 * x
    if ((y - line - offset).abs() <= tolerance * (y.abs() + line.abs() + offset.abs())).all():
        raise _Rejected("linear", "it is constant" if bool((y == offset).all()) else "it is linear")


# --- the catalogue


@dataclass(frozen=True)
class _Catalogue:
    """The names of functions of the catalogue (K) and their values at the first `value_count` points, (K, points)."""

    candidates: tuple[Candidate, ...]
    names: tuple[str, ...]
    values: Tensor


_catalogues: list[_Catalogue] = []  # the last one that was made, if any


def _catalogue() -> _Catalogue:
    """All parameter-free elementwise functions of the catalogue; made again when functions have been registered."""
    candidates = activations.candidates()
    if _catalogues and [id(candidate) for candidate in candidates] == [id(old) for old in _catalogues[0].candidates]:
        return _catalogues[0]
    names, rows = [], []
    for candidate in candidates:
        if candidate.elementwise and not candidate.betas:
            # a user's function may fail in float64, draw random numbers or print
            with _isolated(), suppress(_Rejected):
                rows.append(_output(candidate, sample_points().points[: sample_points().value_count].clone()))
                names.append(candidate.name)
    _catalogues[:] = [_Catalogue(candidates, tuple(names), torch.stack(rows))]
    return _catalogues[0]


def _catalogue_name(values: Tensor, tolerance: float) -> str:
    """The first catalogue function with these values, or "original"."""
    catalogue, count = _catalogue(), sample_points().value_count
    y, x = values[:count], sample_points().points[:count]
    agree = _close(y, catalogue.values, tolerance)
    agree |= (x.abs() > _FINITE_UP_TO) & ~(y.isfinite() & catalogue.values.isfinite())
    matches = agree.all(dim=1).nonzero().flatten().tolist()
    return catalogue.names[matches[0]] if matches else ORIGINAL
