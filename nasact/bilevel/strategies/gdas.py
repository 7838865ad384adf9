"""`gdas`: one function is drawn at each site; alpha gets the gradient of the soft draw, first order, alternating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from nasact.bilevel.hypergradients import Hypergradient, first_order
from nasact.bilevel.problem import Batch, Loss
from nasact.bilevel.strategies.alternating import alpha_gradient, alternate
from nasact.bilevel.strategies.state import SearchState, StepReport, require_normaliser, start
from nasact.options import require_positive

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass(frozen=True, kw_only=True)
class GDAS:
    """Gradient-based search by a differentiable sampler (Dong and Yang 2019, arXiv:1910.04465, Alg. 1).

    Each pass draws one function a row by the Gumbel-max trick: the draw is p_k ~ softmax(a)_k, its gradient that of
    softmax((log softmax(a) + noise) / T) (straight-through: biased, less so as T falls, but of a growing variance). T
    is the study's temperature; a study that names none gets the paper's, linearly from 10 to 0.1.

    How this differs from the published code: that evaluates the drawn function only and adds the other weights, which
    are zero, as bare numbers, so that their gradient knows nothing of their functions. The
    table gives all candidates at the cost of one, so here alpha gets the straight-through gradient of all of them.
    Noise is kept within the finite numbers instead of being drawn again.
    """

    source: ClassVar[str] = "Dong and Yang 2019, arXiv:1910.04465"
    guarantee: ClassVar[str] = "the forward pass is that of a derived network; the gradient is straight-through, biased"
    cost: ClassVar[str] = "about 2 times joint"
    normalisers: ClassVar[tuple[str, ...]] = ("gumbel_hard",)
    normalisers_reason: ClassVar[str] = "it draws one function at a time"
    temperature: ClassVar[tuple[float, float, str]] = (10.0, 0.1, "linear")

    lr: float = 3e-3

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState:
        require_normaliser("gdas", self, supernet)
        return start(supernet, weight_optimiser, loss, alpha_lr=self.lr)

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        return alpha_gradient(state, train, val, first_order, looks_ahead=False)

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        return alternate(state, train, self.alpha_gradient(state, train, val))
