"""A copy of a supernet whose mixtures hold the weights that they are told. Trains and judges nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasact.mixture import Bank, Mixture, Normaliser
from nasact.supernet.supernet import Supernet
from nasact.supernet.surgery import HOOKS


class Slot(nn.Module):
    """One site: its bank, mixed with `weights` (*layout.shape, K), which no optimiser moves unless it is asked to."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.bank: Bank = mixture.bank
        self.normaliser: Normaliser = mixture.normaliser
        self.weights = nn.Parameter(mixture.weights(), requires_grad=False)
        for kind in HOOKS:
            getattr(self, kind).update(getattr(mixture, kind))
        self.training = mixture.training

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.bank(x, self.weights)
        return mixed

    @torch.no_grad()
    def put(self, weights: Tensor, row: tuple[int, ...] = ()) -> None:
        """Take these weights, for one row (channel, unit) or, without `row`, for the whole site."""
        self.weights[row] = weights.to(self.weights)

    @contextmanager
    def holding(self, weights: Tensor, row: tuple[int, ...]) -> Iterator[None]:
        """Other weights for one row, for a while."""
        before = self.weights.detach()[row].clone()
        self.put(weights, row)
        try:
            yield
        finally:
            self.put(before, row)


@dataclass(frozen=True)
class Probe:
    """A network that computes what the supernet computes in evaluation, and its sites in the order of the model."""

    network: nn.Module
    slots: dict[str, Slot]

    @classmethod
    def of(cls, supernet: Supernet) -> Probe:
        """A copy, weights and betas included: the supernet stays as it is. Stochastic mixtures hold their mean."""
        twin = copy.deepcopy(supernet)
        mixtures = twin.mixtures()
        slots = {name: Slot(mixture) for name, mixture in mixtures.items()}
        by_mixture = {id(mixture): slots[name] for name, mixture in mixtures.items()}
        for path, module in list(twin.named_modules(remove_duplicate=False)):
            if id(module) in by_mixture:
                twin.set_submodule(path, by_mixture[id(module)])
        for parameter in twin.parameters():
            parameter.grad = None
        return cls(twin, slots)

    def banks(self) -> dict[str, Bank]:
        return {name: slot.bank for name, slot in self.slots.items()}


def keep(weights: Tensor, chosen: Tensor, normaliser: Normaliser, where: str) -> Tensor:
    """`weights` (..., K) with only the `chosen` (..., K, bool), renormalised, in float64.

    In a row where all of the chosen weigh nothing they share the weight evenly: another rule than magnitude may want
    a function that the search had given up.
    """
    weights = weights.double().cpu()
    kept = torch.where(chosen, weights, torch.zeros_like(weights))
    lost = (kept == 0).all(dim=-1, keepdim=True)
    even = chosen.double() / chosen.sum(dim=-1, keepdim=True).clamp_min(1)
    return normaliser.renormalise(torch.where(lost, even, kept), where)
