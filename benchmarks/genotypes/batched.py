"""Every genotype of an mlp trained at once: one stack of networks, so that a step costs one batched product a layer.

Knows the catalogue and a model's dense layers; neither the data nor what is done with an accuracy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasact import activations

EVALUATION_BATCH = 500


class Networks:
    """The networks of all genotypes, a function of `functions` at each site of `template`; all start with its weights.

    `template` is a chain of dense layers with a relu behind each but the last, as nasact's mlp makes it. With K
    functions and S sites there are K^S networks, in the order of `genotypes()`: the last site changes first. They share
    nothing but the batch: the loss is the sum of their losses, so that the gradient of each is its own, and Adam, which
    works element by element, is K^S Adams.
    """

    def __init__(self, template: nn.Module, functions: Sequence[str]) -> None:
        dense = [module for module in template.modules() if isinstance(module, nn.Linear)]
        self.names = tuple(functions)
        self.sites = len(dense) - 1
        self._functions = [activations.get(name).function for name in functions]
        self._grid = (len(self.names),) * self.sites
        count = len(self.names) ** self.sites
        # (networks, in, out) and (networks, 1, out)
        self.weights = [_copies(layer.weight.detach().T, count) for layer in dense]
        self.biases = [_copies(layer.bias.detach()[None], count) for layer in dense]

    def genotypes(self) -> list[tuple[str, ...]]:
        """In the order of the first dimension of every parameter."""
        return list(itertools.product(self.names, repeat=self.sites))

    def parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def forward(self, x: Tensor) -> Tensor:
        """Scores (networks, N, classes) of the examples x (N, ...)."""
        h = x.flatten(1).expand(len(self.weights[0]), -1, -1)
        for site in range(self.sites):
            h = self._activate(torch.baddbmm(self.biases[site], h, self.weights[site]), site)
        return torch.baddbmm(self.biases[-1], h, self.weights[-1])

    def _activate(self, z: Tensor, site: int) -> Tensor:
        """Function k on slice k of the dimension of `site`: no index, no copy but the result."""
        slices = z.unflatten(0, self._grid).unbind(site)
        done = [function(part) for function, part in zip(self._functions, slices, strict=True)]
        return torch.stack(done, dim=site).flatten(0, self.sites - 1)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum over the networks of their mean cross-entropy on the batch."""
        scores = self.forward(x)
        labels = y.expand(len(scores), -1)
        return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="sum") / len(y)

    @torch.no_grad()
    def accuracies(self, x: Tensor, y: Tensor) -> Tensor:
        """The share of the examples that each network gets right, (networks,)."""
        right = torch.zeros(len(self.weights[0]), dtype=torch.int64)
        for part, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
            right += (self.forward(part).argmax(dim=-1) == labels).sum(dim=-1)
        return right.double() / len(y)


def _copies(value: Tensor, count: int) -> Tensor:
    return value.expand(count, *value.shape).contiguous().requires_grad_()


def adam(networks: Networks, lr: float) -> torch.optim.Optimizer:
    """Adam as nasact builds it; each network has moments of its own."""
    return torch.optim.Adam(networks.parameters(), lr=lr, fused=True)


class Averages:
    """The networks with moving averages of their weights: avg <- decay avg + (1 - decay) w after every step.

    A constant learning rate leaves the weights jumping about their optimum; where one genotype happens to be when
    training ends says little of its function. The first step's weights start the average, as in torch's AveragedModel.
    """

    def __init__(self, networks: Networks, decay: float) -> None:
        self.networks = networks
        self.decay = decay
        self._averages: list[Tensor] | None = None

    @torch.no_grad()
    def update(self) -> None:
        if self._averages is None:
            self._averages = [value.detach().clone() for value in self.networks.parameters()]
        for average, value in zip(self._averages, self.networks.parameters(), strict=True):
            average.lerp_(value, 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[Networks]:
        """The networks with the averages for weights; afterwards they are as they were."""
        if self._averages is None:
            raise RuntimeError("no step has been taken: there is nothing to average")
        values = self.networks.parameters()
        kept = [value.detach().clone() for value in values]
        _overwrite(values, self._averages)
        try:
            yield self.networks
        finally:
            _overwrite(values, kept)


@torch.no_grad()
def _overwrite(values: Iterable[Tensor], others: Iterable[Tensor]) -> None:
    for value, other in zip(values, others, strict=True):
        value.copy_(other)


def train_epoch(
    networks: Networks,
    optimiser: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    averages: Averages | None = None,
) -> None:
    for x, y in batches:
        optimiser.zero_grad(set_to_none=True)
        networks.loss(x, y).backward()
        optimiser.step()
        if averages is not None:
            averages.update()
