"""A weight step at perturbed mixture weights, which are set in every mixture and restored bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from nasact.bilevel.problem import Batch, SupernetProblem, gradients, leaves, materialise
from nasact.bilevel.regularisers.penalised_loss import perturbations
from nasact.bilevel.strategies.state import SearchState
from nasact.mixture import Mixture

IDENTITY_NORMALISER = "free"
"""The normaliser with mixture weights equal to the alphas."""


@contextmanager
def perturbed_mixture_weights(state: SearchState, train: Batch) -> Iterator[None]:
    """Inside the block, each mixture has the weights that the state's perturbations return.

    Compute the gradient inside the block too: afterwards alpha has other values, and autograd would raise.
    """
    active = perturbations(state.regularisers)
    if not active:
        yield
        return
    mixtures = state.supernet.mixtures()
    saved = {site: (mixture.normaliser_name, mixture.alpha.detach().clone()) for site, mixture in mixtures.items()}
    p = {site: _of_remaining(mixture, mixture.weights()) for site, mixture in mixtures.items()}
    try:
        for mixture in mixtures.values():
            mixture.normaliser_name = IDENTITY_NORMALISER
        for perturbation in active:
            p = perturbation.perturb(p, _MixtureGradient(state, mixtures, train), state.progress)
        with torch.no_grad():
            for site, mixture in mixtures.items():
                mixture.alpha.copy_(_of_all(mixture, p[site]))
        yield
    finally:
        with torch.no_grad():
            for site, (name, alpha) in saved.items():
                mixtures[site].normaliser_name = name
                mixtures[site].alpha.copy_(alpha)


class _MixtureGradient:
    """d training loss / d p on the batch of the step; repeated calls draw the same dropout masks."""

    def __init__(self, state: SearchState, mixtures: Mapping[str, Mixture], train: Batch) -> None:
        self.sites = {id(mixture.alpha): site for site, mixture in mixtures.items()}
        self.state, self.mixtures, self.train = state, mixtures, train
        self.problem: SupernetProblem | None = None

    def __call__(self, p: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.problem is None:  # draw seeds only if a gradient is needed
            self.problem = SupernetProblem.draw(self.state.supernet, self.state.loss, self.train, self.train)
        sites = [self.sites[id(alpha)] for alpha in self.state.supernet.arch_parameters()]
        weights = leaves([_of_all(self.mixtures[site], p[site]) for site in sites])
        slopes = materialise(gradients(self.problem.val_loss(self.problem.w, weights), weights), weights)
        return {site: _of_remaining(self.mixtures[site], slope) for site, slope in zip(sites, slopes, strict=True)}


def _of_remaining(mixture: Mixture, values: Tensor) -> Tensor:
    """Return `values` (..., K) without the dropped candidates."""
    return values if mixture.alive_at is None else values.index_select(-1, mixture.alive_at)


def _of_all(mixture: Mixture, values: Tensor) -> Tensor:
    """Return `values` of the remaining candidates with zeros for the dropped ones, (..., K)."""
    if mixture.alive_at is None:
        return values
    return torch.zeros_like(mixture.alpha).index_copy(-1, mixture.alive_at, values)
