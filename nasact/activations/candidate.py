"""The record of one candidate function, and the registry of all of them.

A function here is its mathematics and stated facts. Must not know mixtures, sites, training or studies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, overload

import torch
from torch import Tensor, nn

from nasact.errors import NasactError, did_you_mean
from nasact.registry import Registry

INF = math.inf
EVERYWHERE = (-INF, INF)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Beta:
    """A learnable parameter of a candidate: its initial value, and the closed interval of its valid values."""

    name: str
    init: float
    low: float = -INF
    high: float = INF

    def __post_init__(self) -> None:
        if not self.low <= self.init <= self.high:
            raise NasactError(
                f"parameter {self.name!r}: `low <= init <= high` must hold, "
                f"but got (low={self.low}, init={self.init}, high={self.high})"
            )

    @overload
    def fit(self, value: float, x: Tensor) -> float: ...
    @overload
    def fit(self, value: Tensor, x: Tensor) -> Tensor: ...
    def fit(self, value: float | Tensor, x: Tensor) -> float | Tensor:
        """Return `value`, clamped to its bounds, in the dtype of `x`: a float32 beta must not promote a bfloat16 x.

        The gradient is zero outside the bounds: call `clamp_` on the parameter after an optimiser step.
        """
        if isinstance(value, (int, float)):
            return min(max(float(value), self.low), self.high)
        if self.low > -INF or self.high < INF:
            value = torch.clamp(value, self.low, self.high)
        return value.to(x.dtype)

    def clamp_(self, value: Tensor) -> None:
        """Clamp a parameter to its bounds, in place, after an optimiser step."""
        with torch.no_grad():
            value.clamp_(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A function that may be used at an activation site, and facts about it.

    Facts hold at the initial betas, except `monotone` (non-decreasing), which holds at every beta within its bounds.
    `left`, `right`: what the function approaches at -inf and +inf: a formula in x, `oscillates`, or `?` for unknown.
    `kinks`: the points where the derivative jumps. `jumps`: those kinks where the value jumps too.
    `elementwise`: False for a function that couples features, such as softmax; it takes a keyword `dim`.
    `bounded_slope`: whether the derivative is bounded.
    `module`: makes torch's own module with the same function; None if torch has none.
    """

    name: str
    function: Callable[..., Tensor]
    formula: str
    source: str
    range: tuple[float, float]
    monotone: bool
    left: str
    right: str
    kinks: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()
    betas: tuple[Beta, ...] = ()
    elementwise: bool = True
    bounded_slope: bool = True
    aliases: tuple[str, ...] = ()
    module: Callable[[], nn.Module] | None = None

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise NasactError(
                    f"function {name!r}: a name must consist of letters, digits and _ and start with a letter"
                )
        if not callable(self.function):
            raise NasactError(f"function {self.name!r}: `function` must be callable, but got {self.function!r}")
        low, high = self.range
        if not low <= high:
            raise NasactError(
                f"function {self.name!r}: range: `low <= high` must hold, but got (low={low}, high={high})"
            )
        if tuple(sorted(set(self.kinks))) != self.kinks or not all(math.isfinite(kink) for kink in self.kinks):
            raise NasactError(f"function {self.name!r}: kinks must be finite and ascending, but got {self.kinks}")
        if not set(self.jumps) <= set(self.kinks):
            raise NasactError(
                f"function {self.name!r}: every jump must be a kink, but got {self.jumps} in {self.kinks}"
            )
        if len({beta.name for beta in self.betas}) < len(self.betas):
            raise NasactError(f"function {self.name!r}: two parameters have the same name")

    def __call__(self, x: Tensor, *betas: float | Tensor, dim: int = -1) -> Tensor:
        """f(x). Missing betas take their initial values. `dim` is the dimension that a coupled function couples."""
        if len(betas) > len(self.betas):
            raise NasactError(f"function {self.name!r} has {len(self.betas)} parameters, but got {len(betas)}")
        values = (*betas, *(beta.init for beta in self.betas[len(betas) :]))
        return self.function(x, *values) if self.elementwise else self.function(x, *values, dim=dim)


# Each alias is a separate entry with the same record, so that look-up and near matches include it.
CANDIDATES: Registry[Candidate] = Registry("function", "nasact list functions")


def register(candidate: Candidate) -> Candidate:
    """Register a candidate under its name and its aliases; NasactError, and nothing is registered, if one is taken."""
    names = (candidate.name, *candidate.aliases)
    for position, name in enumerate(names):
        if name in CANDIDATES:
            owner = CANDIDATES.get(name).name
            alias = f" (an alias of {owner!r})" if owner != name else ""
            raise NasactError(f"function {name!r} is already registered{alias}")
        if name in names[:position]:
            raise NasactError(f"function {candidate.name!r}: the name {name!r} is given twice")
    for name in names:
        CANDIDATES.register(name, candidate)
    return candidate


def register_function(
    name: str, function: Callable[..., Tensor], *, betas: Mapping[str, float] | Iterable[Beta] = (), **facts: Any
) -> Candidate:
    """Register a user's function in one line: `register_function("my_act", lambda x: x * torch.sigmoid(x))`.

    `betas`: learnable parameters, as `{name: initial value}` or as `Beta` records; the function receives them after x.
    `facts`: fields of `Candidate`. Defaults claim nothing: an unbounded range, not monotone, unknown asymptotes.
    """
    known = [field.name for field in fields(Candidate) if field.name not in ("name", "function", "betas")]
    for fact in facts:
        if fact not in known:
            raise NasactError(f"function {name!r}: unknown fact {fact!r}.{did_you_mean(fact, known)}")
    records = (Beta(name=key, init=init) for key, init in betas.items()) if isinstance(betas, Mapping) else betas
    fields_of_record: dict[str, Any] = {
        "formula": f"{name}(x)",
        "source": "user",
        "range": EVERYWHERE,
        "monotone": False,
        "left": "?",
        "right": "?",
    }
    for fact, value in facts.items():
        fields_of_record[fact] = tuple(value) if isinstance(value, list) else value
    candidate = Candidate(name=name, function=function, betas=tuple(records), **fields_of_record)
    _check_call(candidate)
    return register(candidate)


def get(name: str) -> Candidate:
    """The candidate with the name or alias `name`; UnknownName, with near matches, if there is none."""
    return CANDIDATES.get(name)


def names() -> tuple[str, ...]:
    """The name of every candidate, without aliases, in the order of registration."""
    return tuple(name for name, candidate in CANDIDATES.items() if candidate.name == name)


def candidates() -> tuple[Candidate, ...]:
    """Every candidate, in the order of registration."""
    return tuple(get(name) for name in names())


def _check_call(candidate: Candidate) -> None:
    """Call a user's function once, so that a wrong function is refused now and not in the middle of a search."""
    x = torch.linspace(-2.0, 2.0, 6).reshape(2, 3)
    try:
        y = candidate(x)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        keyword = "" if candidate.elementwise else " with the keyword dim (elementwise=False)"
        raise NasactError(f"function {candidate.name!r} cannot be called on a tensor{keyword}: {reason}") from error
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
        got = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise NasactError(
            f"function {candidate.name!r} must map a tensor to a tensor of the same shape and type, "
            f"but returned {got} for {x.dtype} of shape {tuple(x.shape)}"
        )
