"""Candidates of the form x * gate(x): silu, gelu, mish and their relatives. All but hard_swish are smooth.

Where the exponential in a gate would overflow, its argument is clamped at a point beyond which the gate is constant to
the last bit in float64. So the value and the derivatives of every order stay finite and correct.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from nasact.activations.candidate import INF, Candidate, register

# e^-e^8 = 0 and tanh(e^4) = 1 exactly in float64
_GOLU_ZERO = -8.0
_TANHEXP_ONE = 4.0
# tanh(softplus(40)) = 1 exactly in float64
_MISH_ONE = 40.0


def gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def mish(x: Tensor) -> Tensor:
    # the second derivative of torch's mish is nan where e^x overflows
    return torch.where(x > _MISH_ONE, x, functional.mish(torch.clamp(x, max=_MISH_ONE)))


def tanhexp(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.exp(torch.clamp(x, max=_TANHEXP_ONE)))


def serf(x: Tensor) -> Tensor:
    return x * torch.erf(functional.softplus(x))


def golu(x: Tensor) -> Tensor:
    return x * torch.exp(-torch.exp(-torch.clamp(x, min=_GOLU_ZERO)))


def logish(x: Tensor) -> Tensor:
    return x * torch.log1p(torch.sigmoid(x))


def elish(x: Tensor) -> Tensor:
    # without the clamp, the backward pass of where() multiplies the unused branch's overflow by zero: nan
    return torch.where(x >= 0, x, torch.expm1(torch.clamp(x, max=0.0))) * torch.sigmoid(x)


register(
    Candidate(
        name="silu",
        function=functional.silu,
        formula="x s(x), s the sigmoid",
        source="arXiv:1710.05941",
        range=(-0.2784645427610738, INF),
        monotone=False,
        left="0",
        right="x",
        aliases=("swish",),
        module=nn.SiLU,
    )
)
register(
    Candidate(
        name="gelu",
        function=functional.gelu,
        formula="x Phi(x), Phi the normal distribution",
        source="arXiv:1606.08415",
        range=(-0.16997120747990366, INF),
        monotone=False,
        left="0",
        right="x",
        module=nn.GELU,
    )
)
register(
    Candidate(
        name="gelu_tanh",
        function=gelu_tanh,
        formula="x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))",
        source="arXiv:1606.08415",
        range=(-0.17004075057125405, INF),
        monotone=False,
        left="0",
        right="x",
        aliases=("gelu_new",),
        module=functools.partial(nn.GELU, approximate="tanh"),
    )
)
register(
    Candidate(
        name="quick_gelu",
        function=quick_gelu,
        formula="x s(1.702 x), s the sigmoid",
        source="arXiv:1606.08415",
        range=(-0.16361018963635359, INF),
        monotone=False,
        left="0",
        right="x",
    )
)
register(
    Candidate(
        name="mish",
        function=mish,
        formula="x tanh(ln(1 + e^x))",
        source="arXiv:1908.08681",
        range=(-0.30884341301725041, INF),
        monotone=False,
        left="0",
        right="x",
        module=nn.Mish,
    )
)
register(
    Candidate(
        name="hard_swish",
        function=functional.hardswish,
        formula="x min(max(x + 3, 0), 6) / 6",
        source="arXiv:1905.02244",
        range=(-0.375, INF),
        monotone=False,
        left="0",
        right="x",
        kinks=(-3.0, 3.0),
        aliases=("hardswish",),
        module=nn.Hardswish,
    )
)
register(
    Candidate(
        name="tanhexp",
        function=tanhexp,
        formula="x tanh(e^x)",
        source="arXiv:2003.09855",
        range=(-0.35328577784821127, INF),
        monotone=False,
        left="0",
        right="x",
    )
)
register(
    Candidate(
        name="serf",
        function=serf,
        formula="x erf(ln(1 + e^x))",
        source="arXiv:2108.09598",
        range=(-0.34843745875960642, INF),
        monotone=False,
        left="0",
        right="x",
    )
)
register(
    Candidate(
        name="golu",
        function=golu,
        formula="x exp(-exp(-x))",
        source="arXiv:2502.03654",
        range=(-0.097260131227639405, INF),
        monotone=False,
        left="0",
        right="x",
    )
)
register(
    Candidate(
        name="logish",
        function=logish,
        formula="x ln(1 + s(x)), s the sigmoid",
        source="Zhu et al. 2021, Neurocomputing 458",
        range=(-0.25276881678944035, INF),
        monotone=False,
        left="0",
        right="0.693147 x",
    )
)
register(
    Candidate(
        name="elish",
        function=elish,
        formula="x s(x) where x >= 0, else (e^x - 1) s(x), s the sigmoid",
        source="arXiv:1808.00783",
        range=(-0.1715728752538099, INF),
        monotone=False,
        left="0",
        right="x",
    )
)
