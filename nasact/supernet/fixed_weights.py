"""A copy of a supernet whose mixtures have weights that are set by hand. Must not know training or evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nasact.mixture import Bank, Mixture, Normaliser
from nasact.supernet.supernet import Supernet
from nasact.surgery.copying import copy_model
from nasact.surgery.install import copy_hooks


class FixedWeightMixture(nn.Module):
    """One site: its bank, mixed with `weights` (*layout.shape, K), which have requires_grad False."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.bank: Bank = mixture.bank
        self.normaliser: Normaliser = mixture.normaliser
        self.weights = nn.Parameter(mixture.weights(), requires_grad=False)
        copy_hooks(mixture, self)
        self.training = mixture.training

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.bank(x, self.weights)
        return mixed

    @torch.no_grad()
    def set_weights(self, weights: Tensor, row: tuple[int, ...] = ()) -> None:
        """Set the weights of the whole site or, with `row`, those of one channel or unit."""
        self.weights[row] = weights.to(self.weights)

    @contextmanager
    def temporary_weights(self, weights: Tensor, row: tuple[int, ...]) -> Iterator[None]:
        """Set the weights of one row inside the block, and restore the previous ones after it."""
        before = self.weights.detach()[row].clone()
        self.set_weights(weights, row)
        try:
            yield
        finally:
            self.set_weights(before, row)


@dataclass(frozen=True)
class FixedWeightSupernet:
    """A network that computes what the supernet computes in evaluation.

    `mixtures`: site name to its mixture, in the order in which the model applies them.
    """

    network: nn.Module
    mixtures: dict[str, FixedWeightMixture]

    @classmethod
    def copy_of(cls, supernet: Supernet) -> FixedWeightSupernet:
        """Copy the supernet with its weights and betas; stochastic mixtures get their mean weights."""
        copied = copy_model(supernet)
        assert isinstance(copied, Supernet)
        mixtures = copied.mixtures()
        fixed = {name: FixedWeightMixture(mixture) for name, mixture in mixtures.items()}
        fixed_by_id = {id(mixture): fixed[name] for name, mixture in mixtures.items()}
        for path, module in list(copied.named_modules(remove_duplicate=False)):
            if id(module) in fixed_by_id:
                copied.set_submodule(path, fixed_by_id[id(module)])
        for parameter in copied.parameters():
            parameter.grad = None
        return cls(copied, fixed)

    def banks(self) -> dict[str, Bank]:
        """Site name to the bank of its mixture."""
        return {name: mixture.bank for name, mixture in self.mixtures.items()}
