"""Scalar formulas of every candidate in 40 digits, written from the papers and not from the code under test."""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
from mpmath import mpf

Scalar = Callable[..., mp.mpf]

DIGITS = 40


def _s(x: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-x))


def _softplus(x: mp.mpf) -> mp.mpf:
    return mp.log1p(mp.exp(x))


def _ramp(x: mp.mpf, b: mp.mpf) -> mp.mpf:
    return (max(x + b, 0) - max(x - b, 0)) / (2 * b)


def _elu(x: mp.mpf, scale: str = "1", alpha: str = "1") -> mp.mpf:
    return mpf(scale) * (x if x > 0 else mpf(alpha) * mp.expm1(x))


def _shrink(x: mp.mpf, hard: bool) -> mp.mpf:
    if abs(x) <= 0.5:
        return mpf(0)
    return x if hard else x - mp.sign(x) / 2


# The other entries of a row whose first entry is varied, for softmax.
SOFTMAX_OTHERS = (-1.0, 0.5)

ORACLES: dict[str, Scalar] = {
    "relu": lambda x: x if x > 0 else mpf(0),
    "identity": lambda x: x,
    "leaky_relu": lambda x: x if x > 0 else x / 100,
    "relu6": lambda x: min(max(x, 0), 6),
    "squared_relu": lambda x: x * x if x > 0 else mpf(0),
    "star_relu": lambda x: mpf("0.8944") * (x * x if x > 0 else 0) - mpf("0.4472"),
    "abs": lambda x: x if x > 0 else -x,
    "softshrink": lambda x: _shrink(x, hard=False),
    "hardshrink": lambda x: _shrink(x, hard=True),
    "tanh": lambda x: (mp.exp(2 * x) - 1) / (mp.exp(2 * x) + 1),
    "sigmoid": _s,
    "softsign": lambda x: x / (1 + abs(x)),
    "hard_sigmoid": lambda x: min(max(x / 6 + mpf(1) / 2, 0), 1),
    "hardtanh": lambda x: min(max(x, -1), 1),
    "tanhshrink": lambda x: x - mp.tanh(x),
    "softplus": _softplus,
    "logsigmoid": lambda x: -_softplus(-x),
    "elu": _elu,
    "selu": lambda x: _elu(x, "1.0507009873554804934193349852946", "1.6732632423543772848170429916717"),
    "celu": _elu,
    "silu": lambda x: x * _s(x),
    "gelu": lambda x: x * mp.ncdf(x),
    "gelu_tanh": lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3))),
    "quick_gelu": lambda x: x * _s(mpf("1.702") * x),
    "mish": lambda x: x * mp.tanh(_softplus(x)),
    "hard_swish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "tanhexp": lambda x: x * mp.tanh(mp.exp(x)),
    "serf": lambda x: x * mp.erf(_softplus(x)),
    "golu": lambda x: x * mp.exp(-mp.exp(-x)),
    "logish": lambda x: x * mp.log(1 + _s(x)),
    "elish": lambda x: x * _s(x) if x >= 0 else mp.expm1(x) * _s(x),
    "sin": mp.sin,
    "cos": mp.cos,
    "snake": lambda x, a: x + mp.sin(a * x) ** 2 / a,
    "cube": lambda x: x**3 if abs(x) <= 1 else 3 * x - 2 * mp.sign(x),
    "signed_cbrt": lambda x: x / mp.cbrt(x**2 + mpf("0.1") ** 2),
    "leaky_slope": lambda x, slope: x if x > 0 else slope * x,
    "prelu": lambda x, slope: x if x > 0 else slope * x,
    "bounded_ramp": _ramp,
    "signed_ramp": lambda x, b: 2 * _ramp(x, b) - 1,
    "xielu": lambda x, a_p, a_n: a_p * x**2 + x / 2 if x > 0 else a_n * mp.expm1(x) - a_n * x + x / 2,
    "softmax": lambda x: mp.exp(x) / (mp.exp(x) + sum(mp.exp(other) for other in SOFTMAX_OTHERS)),
}

# For each parameter a second value to check at, within the bounds and different from the initial one.
OTHER_BETAS: dict[str, tuple[float, ...]] = {
    "snake": (0.3,),
    "leaky_slope": (0.7,),
    "prelu": (-0.4,),
    "bounded_ramp": (0.1,),
    "signed_ramp": (3.0,),
    "xielu": (0.2, 1.5),
}


def oracle(name: str, x: float, *betas: float) -> float:
    """The value of `name` at x in 40 digits, rounded once."""
    with mp.workdps(DIGITS):
        return float(ORACLES[name](mpf(x), *(mpf(beta) for beta in betas)))
