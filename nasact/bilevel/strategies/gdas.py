"""`gdas`: each pass draws one function per site; alpha gets the gradient of the soft draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nasact.bilevel.strategies.base import STRATEGIES
from nasact.bilevel.strategies.first_order_alternating import FirstOrder


@dataclass(frozen=True, kw_only=True)
class GDAS(FirstOrder):
    """Gradient-based search by a differentiable sampler (Dong and Yang 2019, arXiv:1910.04465, Alg. 1).

    First-order DARTS with normaliser `gumbel_hard`. Each pass draws one function per row with the Gumbel-max trick: the
    draw is p_k ~ softmax(a)_k, its gradient that of softmax((log softmax(a) + noise) / T) (straight-through: biased;
    a lower T means less bias and more variance). T is the study's temperature; the default is the paper's, linear from
    10 to 0.1.

    Differences from the published code: it evaluates only the drawn function, so that the gradient of the other weights
    does not depend on their functions. Here the table computes all candidates at the cost of one, and alpha gets the
    straight-through gradient of all of them. Noise that is not finite is clamped instead of drawn again.
    """

    source: ClassVar[str] = "Dong and Yang 2019, arXiv:1910.04465"
    guarantee: ClassVar[str] = "the forward pass is that of a derived network; the gradient is straight-through, biased"
    normalisers: ClassVar[tuple[str, ...]] = ("gumbel_hard",)
    normalisers_reason: ClassVar[str] = "it draws one function at a time"
    temperature: ClassVar[tuple[float, float, str]] = (10.0, 0.1, "linear")


STRATEGIES.register("gdas", GDAS)
