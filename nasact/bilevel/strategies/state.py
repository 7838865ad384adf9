"""The state of a search between two steps, and its start. Must not know strategies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nasact.bilevel.problem import Loss, require_registered_parameters, trainable_weights
from nasact.bilevel.regularisers.base import Regulariser
from nasact.errors import StoreError, StudyError, SurgeryError, one_line

if TYPE_CHECKING:
    from nasact.supernet import Supernet


@dataclass
class SearchState:
    """A search between two steps. All that changes during a search is in here."""

    supernet: Supernet
    weight_optimiser: torch.optim.Optimizer
    alpha_optimiser: torch.optim.Optimizer
    loss: Loss
    step: int = 0
    progress: float = 0.0
    """The completed part of the search without its warm-up, 0 <= progress < 1. The search loop sets it before each
    step, so it is not saved."""
    alpha_lr_scale: float = 1.0
    """The factor of alpha's learning rate. The search loop sets it, as it sets `progress`."""
    regularisers: tuple[Regulariser, ...] = ()
    """What is added to the losses. Part of the study, like the strategy, so it is not saved."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy that later steps do not change."""
        return copy.deepcopy(
            {
                "supernet": {name: tensor.detach() for name, tensor in self.supernet.state_dict().items()},
                "weight_optimiser": self.weight_optimiser.state_dict(),
                "alpha_optimiser": self.alpha_optimiser.state_dict(),
                "step": self.step,
            }
        )

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue from `saved`, which is not changed; raise StoreError if it does not fit this supernet."""
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


def initial_state(
    supernet: Supernet,
    weight_optimiser: torch.optim.Optimizer,
    loss: Loss,
    *,
    alpha_optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> SearchState:
    """Return the state before the first step; `alpha_optimiser` builds the optimiser of the alphas.

    Raise SurgeryError or StudyError if there is no alpha, an alpha is frozen or in the weight optimiser, or the weight
    optimiser belongs to another network.
    """
    alphas = supernet.arch_parameters()
    if not alphas:
        raise SurgeryError("the supernet has no architecture parameters: there is nothing to search")
    require_registered_parameters(supernet)
    optimised = {id(parameter) for group in weight_optimiser.param_groups for parameter in group["params"]}
    for name, alpha in zip(alpha_names(supernet), alphas, strict=True):
        if id(alpha) in optimised:
            raise StudyError(f"{name}: its alpha is in the weight optimiser; give that weight_parameters() only")
        if not alpha.requires_grad:
            raise SurgeryError(f"{name}: its alpha is frozen (requires_grad is False)")
    weights = trainable_weights(supernet)
    if weights and not any(id(weight) in optimised for weight in weights):
        raise StudyError("the weight optimiser holds no weight of the supernet; give it weight_parameters()")
    return SearchState(supernet, weight_optimiser, alpha_optimiser(alphas), loss)


def darts_adam(alphas: list[nn.Parameter], *, lr: float) -> torch.optim.Optimizer:
    """Return the optimiser that DARTS uses for alpha (arXiv:1806.09055, section 3.1.1): Adam without weight decay."""
    return torch.optim.Adam(alphas, lr=lr, betas=(0.5, 0.999), weight_decay=0.0)


def alpha_names(supernet: Supernet) -> list[str]:
    """Return how messages call each of `arch_parameters()`: by its site, or by the name of the parameter."""
    names = {id(parameter): f"parameter {name!r}" for name, parameter in supernet.named_parameters()}
    names.update((id(mixture.alpha), f"site {site!r}") for site, mixture in supernet.mixtures().items())
    return [names.get(id(alpha), f"alpha {index}") for index, alpha in enumerate(supernet.arch_parameters())]
