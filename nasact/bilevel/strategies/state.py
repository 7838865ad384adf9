"""What a strategy keeps between steps, what it reports, and the two updates that all strategies share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from nasact.bilevel.hypergradients import Hypergradient
from nasact.bilevel.problem import Batch, Gradients, Loss, require_weights_known, scalar, trainable_weights
from nasact.bilevel.regularisers import Regulariser, penalised
from nasact.errors import Divergence, StoreError, StudyError, SurgeryError, one_line

if TYPE_CHECKING:
    from nasact.supernet import Supernet

ALPHA_BETAS = (0.5, 0.999)
"""Adam's betas for alpha in DARTS (arXiv:1806.09055, section 3.1.1)."""


@dataclass
class SearchState:
    """A search between two steps. The only thing that changes in a search."""

    supernet: Supernet
    weight_optimiser: torch.optim.Optimizer
    alpha_optimiser: torch.optim.Optimizer
    loss: Loss
    step: int = 0
    progress: float = 0.0
    """The part of the search that lies behind, warm-up not counted: from 0 to below 1. The loop tells it before each
    step, so that it need not be saved."""
    alpha_lr_scale: float = 1.0
    """What part of its learning rate alpha has now. Told by the loop, as `progress` is."""
    regularisers: tuple[Regulariser, ...] = ()
    """What joins the losses. SearchPhase of how the search was asked for, as the strategy is, and not saved either."""

    def state_dict(self) -> dict[str, Any]:
        """A copy that later steps do not change."""
        return copy.deepcopy(
            {
                "supernet": {name: tensor.detach() for name, tensor in self.supernet.state_dict().items()},
                "weight_optimiser": self.weight_optimiser.state_dict(),
                "alpha_optimiser": self.alpha_optimiser.state_dict(),
                "step": self.step,
            }
        )

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where `saved` was taken; `saved` itself stays untouched."""
        expected = {"supernet", "weight_optimiser", "alpha_optimiser", "step"}
        if set(saved) != expected:
            raise StoreError(f"a search state holds {sorted(expected)}, but got {sorted(saved)}")
        saved = copy.deepcopy(dict(saved))
        try:
            self.supernet.load_state_dict(saved["supernet"])
            self.weight_optimiser.load_state_dict(saved["weight_optimiser"])
            self.alpha_optimiser.load_state_dict(saved["alpha_optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = one_line(error)
            raise StoreError(f"the saved search state does not fit this supernet: {reason}") from error
        self.step = int(saved["step"])


@dataclass(frozen=True)
class StepReport:
    """The losses that one step saw: of the weight step on the training batch, of the hypergradient on validation.

    Without what regularisers add to them.
    """

    train_loss: float
    val_loss: float | None


class Strategy(Protocol):
    """How `w` and alpha are updated: a frozen record of hyperparameters; the state is a separate `SearchState`.

    Optional attributes:

    - `alpha_moves_from`: progress (0..1) at which alpha starts to be updated; None: never. Default 0.
    - `phases`: the phases that the strategy divides a search into (`phases.SearchPhase`). A study whose search is too
      short for them is refused.
    - `remaining_candidates(k)`: how many of the k candidates of a site are left at the end. Default k.
    - `temperature`: (start, end, schedule) of a study that names no temperature. Default: constant 1.
    - `weight_steps`: whether the strategy takes steps of `w` alone. Default True.
    - `normalisers_reason`: why the strategy supports only its `normalisers`; part of the refusal.
    """

    source: ClassVar[str]
    guarantee: ClassVar[str]
    cost: ClassVar[str]
    normalisers: ClassVar[tuple[str, ...]]
    """Those that it can serve, the first being what a study gets that names none; empty: it serves all. One that names
    some says in `normalisers_reason` what the others lack."""

    @property
    def lr(self) -> float: ...

    def init(self, supernet: Supernet, weight_optimiser: torch.optim.Optimizer, loss: Loss) -> SearchState: ...

    def alpha_gradient(self, state: SearchState, train: Batch, val: Batch) -> Hypergradient:
        """The gradient that `step` would give alpha; changes nothing but the position of the random generator."""
        ...

    def step(self, state: SearchState, train: Batch, val: Batch) -> StepReport:
        """One update of alpha and one of `w`, in place."""
        ...


def candidates_left_at_end(strategy: Strategy, k: int) -> int:
    """How many of the k candidates of a site are left at the end of a search."""
    told: int = strategy.remaining_candidates(k) if hasattr(strategy, "remaining_candidates") else k
    return told


def start(
    supernet: Supernet,
    weight_optimiser: torch.optim.Optimizer,
    loss: Loss,
    *,
    alpha_lr: float,
    alpha_optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
) -> SearchState:
    """The state before the first step; alpha has an optimiser of its own: no weight decay, its own learning rate.

    `alpha_optimiser` makes it, where that is not DARTS' Adam.
    """
    alphas = supernet.arch_parameters()
    if not alphas:
        raise SurgeryError("the supernet has no architecture parameters: there is nothing to search")
    require_weights_known(supernet)
    optimised = {id(parameter) for group in weight_optimiser.param_groups for parameter in group["params"]}
    for name, alpha in zip(alpha_names(supernet), alphas, strict=True):
        if id(alpha) in optimised:
            raise StudyError(f"{name}: its alpha is in the weight optimiser; give that weight_parameters() only")
        if not alpha.requires_grad:
            raise SurgeryError(f"{name}: its alpha is frozen (requires_grad is False)")
    weights = trainable_weights(supernet)
    if weights and not any(id(weight) in optimised for weight in weights):
        raise StudyError("the weight optimiser holds no weight of the supernet; give it weight_parameters()")
    made = (
        torch.optim.Adam(alphas, lr=alpha_lr, betas=ALPHA_BETAS, weight_decay=0.0)
        if alpha_optimiser is None
        else alpha_optimiser(alphas)
    )
    return SearchState(supernet, weight_optimiser, made, loss)


def unsupported_normaliser(name: str, strategy: type[Strategy] | Strategy, normaliser: str) -> str:
    """Why the strategy called `name` is not given that normaliser, and which it is to be given."""
    reason: str = getattr(strategy, "normalisers_reason", "it is made for others")
    return (
        f"strategy {name!r} cannot serve normaliser {normaliser!r}: {reason}; use {' or '.join(strategy.normalisers)}"
    )


def require_normaliser(name: str, strategy: Strategy, supernet: Supernet) -> None:
    """StudyError naming the first site whose mixture weights come from a normaliser that it does not serve."""
    for site, mixture in supernet.mixtures().items():
        if mixture.normaliser_name not in strategy.normalisers:
            raise StudyError(f"site {site!r}: {unsupported_normaliser(name, strategy, mixture.normaliser_name)}")


def train_mode(supernet: Supernet) -> None:
    """Back to train mode after an evaluation; a submodule that was frozen in eval mode by itself stays so."""
    if not supernet.training:
        supernet.train()


def forward(state: SearchState, batch: Batch) -> Tensor:
    """The loss through the real module, buffers updated; its gradient is that with all regularisers."""
    loss = scalar(state.loss(state.supernet(batch.x), batch.y))
    return penalised(loss, state.regularisers, "both", state.supernet, {}, state.progress)


def move_alpha(state: SearchState, grads: Gradients) -> None:
    """One step of alpha at its alpha_lr_scale, then back to the set that its normaliser allows."""
    alphas = state.supernet.arch_parameters()
    require_finite_gradients(state, grads)
    set_gradients(alphas, grads)
    rates = [group["lr"] for group in state.alpha_optimiser.param_groups]
    try:
        for group, rate in zip(state.alpha_optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * state.alpha_lr_scale
        state.alpha_optimiser.step()
    finally:
        for group, rate in zip(state.alpha_optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
    state.supernet.project_()


def move_weights(state: SearchState, grads: Gradients) -> None:
    set_gradients(trainable_weights(state.supernet), grads)
    state.weight_optimiser.step()


def set_gradients(parameters: Sequence[nn.Parameter], grads: Gradients) -> None:
    """None stays None: torch's optimisers leave such a parameter alone, weight decay included."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad


def require_finite(loss: Tensor | None, name: str, state: SearchState) -> None:
    if loss is not None and not bool(torch.isfinite(loss)):
        raise Divergence(f"step {state.step + 1}: the {name} loss is {loss.item()}")


def require_finite_gradients(state: SearchState, grads: Gradients) -> None:
    for name, grad in zip(alpha_names(state.supernet), grads, strict=True):
        if grad is not None and not bool(torch.isfinite(grad).all()):
            raise Divergence(f"step {state.step + 1}: {name}: the gradient of alpha is not finite")


def alpha_names(supernet: Supernet) -> list[str]:
    """What to call each of `arch_parameters()` in a message: its site, or the parameter's own name."""
    names = {id(parameter): f"parameter {name!r}" for name, parameter in supernet.named_parameters()}
    names.update((id(mixture.alpha), f"site {site!r}") for site, mixture in supernet.mixtures().items())
    return [names.get(id(alpha), f"alpha {index}") for index, alpha in enumerate(supernet.arch_parameters())]
