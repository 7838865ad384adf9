"""A weight step at perturbed mixture weights: every mixture is given them as they are, and put back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from nasact.bilevel.problem import Batch, SupernetProblem, gradients, leaves, materialise
from nasact.bilevel.regularisers import perturbations
from nasact.bilevel.strategies.state import SearchState
from nasact.mixture import Mixture

AS_GIVEN = "free"
"""The normaliser whose mixture weights are its alphas."""


@contextmanager
def perturbed(state: SearchState, train: Batch) -> Iterator[None]:
    """Inside, each mixture's weights are what the state's perturbations make of them.

    The gradient must be taken inside too: autograd notices that alpha has other numbers afterwards.
    """
    wanted = perturbations(state.regularisers)
    if not wanted:
        yield
        return
    mixtures = state.supernet.mixtures()
    kept = {site: (mixture.normaliser_name, mixture.alpha.detach().clone()) for site, mixture in mixtures.items()}
    p = {site: _alive(mixture, mixture.weights()) for site, mixture in mixtures.items()}
    try:
        for mixture in mixtures.values():
            mixture.normaliser_name = AS_GIVEN
        for perturbation in wanted:
            p = perturbation.perturb(p, _Slope(state, mixtures, train), state.progress)
        with torch.no_grad():
            for site, mixture in mixtures.items():
                mixture.alpha.copy_(_whole(mixture, p[site]))
        yield
    finally:
        with torch.no_grad():
            for site, (name, alpha) in kept.items():
                mixtures[site].normaliser_name = name
                mixtures[site].alpha.copy_(alpha)


class _Slope:
    """d training loss / d p on the step's own batch; asked several times, it draws the same dropout masks."""

    def __init__(self, state: SearchState, mixtures: Mapping[str, Mixture], train: Batch) -> None:
        self.sites = {id(mixture.alpha): site for site, mixture in mixtures.items()}
        self.state, self.mixtures, self.train = state, mixtures, train
        self.problem: SupernetProblem | None = None

    def __call__(self, p: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.problem is None:  # the seeds are drawn where they are needed only
            self.problem = SupernetProblem.draw(self.state.supernet, self.state.loss, self.train, self.train)
        sites = [self.sites[id(alpha)] for alpha in self.state.supernet.arch_parameters()]
        given = leaves([_whole(self.mixtures[site], p[site]) for site in sites])
        slopes = materialise(gradients(self.problem.val_loss(self.problem.w, given), given), given)
        return {site: _alive(self.mixtures[site], slope) for site, slope in zip(sites, slopes, strict=True)}


def _alive(mixture: Mixture, values: Tensor) -> Tensor:
    """Without the candidates that were dropped."""
    return values if mixture.alive_at is None else values.index_select(-1, mixture.alive_at)


def _whole(mixture: Mixture, values: Tensor) -> Tensor:
    """With zeros for them."""
    if mixture.alive_at is None:
        return values
    return torch.zeros_like(mixture.alpha).index_copy(-1, mixture.alive_at, values)
