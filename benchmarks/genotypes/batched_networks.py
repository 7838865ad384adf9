"""All genotypes of an mlp, trained as one stack of networks: a step costs one batched product per layer.

Knows the catalogue and a model's dense layers; knows neither the data nor the table.
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
    """The networks of all genotypes: one of `functions` at each site of `template`. All start with its weights.

    `template` is a chain of dense layers with a relu after each but the last, as nasact's mlp is. With K functions and
    S sites there are K^S networks, in the order of `genotypes()`: the last site changes first. The networks share only
    the batch. Their loss is the sum of the single losses, so the gradient of each network is that of its own loss; and
    Adam works element by element, so one Adam does what K^S Adams would do.
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
        """The genotypes, in the order of the first dimension of every parameter."""
        return list(itertools.product(self.names, repeat=self.sites))

    def parameters(self) -> list[Tensor]:
        return [*self.weights, *self.biases]

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (networks, N, classes) of the examples x (N, ...)."""
        h = x.flatten(1).expand(len(self.weights[0]), -1, -1)
        for site in range(self.sites):
            h = self._activate(torch.baddbmm(self.biases[site], h, self.weights[site]), site)
        return torch.baddbmm(self.biases[-1], h, self.weights[-1])

    def _activate(self, z: Tensor, site: int) -> Tensor:
        """Apply function k to slice k of the dimension of `site`: without an index, and without a copy of z."""
        slices = z.unflatten(0, self._grid).unbind(site)
        outputs = [function(part) for function, part in zip(self._functions, slices, strict=True)]
        return torch.stack(outputs, dim=site).flatten(0, self.sites - 1)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum, over the networks, of the mean cross-entropy on the batch."""
        scores = self.forward(x)
        labels = y.expand(len(scores), -1)
        return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="sum") / len(y)

    @torch.no_grad()
    def accuracies(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the share of the examples that each network classifies correctly, (networks,)."""
        right = torch.zeros(len(self.weights[0]), dtype=torch.int64)
        for part, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
            right += (self.forward(part).argmax(dim=-1) == labels).sum(dim=-1)
        return right.double() / len(y)


def _copies(value: Tensor, count: int) -> Tensor:
    return value.expand(count, *value.shape).contiguous().requires_grad_()


def adam(networks: Networks, lr: float) -> torch.optim.Optimizer:
    """Return Adam as nasact builds it. Its moments have the shape of the parameters, so networks share none."""
    return torch.optim.Adam(networks.parameters(), lr=lr, fused=True)


class MovingAverages:
    """Moving averages of the networks' weights: avg <- decay avg + (1 - decay) w after every step.

    With a constant learning rate the weights jump about their optimum, so the accuracy after the last step says little
    about the functions. The first step's weights start the average, as in torch's AveragedModel.
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
        """Yield the networks with the averages as weights; restore the weights afterwards."""
        if self._averages is None:
            raise RuntimeError("there is no average before the first step")
        values = self.networks.parameters()
        weights = [value.detach().clone() for value in values]
        _overwrite(values, self._averages)
        try:
            yield self.networks
        finally:
            _overwrite(values, weights)


@torch.no_grad()
def _overwrite(values: Iterable[Tensor], others: Iterable[Tensor]) -> None:
    for value, other in zip(values, others, strict=True):
        value.copy_(other)


def train_epoch(
    networks: Networks,
    optimiser: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    averages: MovingAverages | None = None,
) -> None:
    """Take one step per batch; update `averages`, if there are any, after each."""
    for x, y in batches:
        optimiser.zero_grad(set_to_none=True)
        networks.loss(x, y).backward()
        optimiser.step()
        if averages is not None:
            averages.update()
