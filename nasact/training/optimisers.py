"""Optimisers of the network weights, by name. Must not know about alpha: a strategy owns its optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import nn

from nasact.registry import Registry


class OptimiserOptions(Protocol):
    """What a study says about an optimiser (`study.OptimiserSpec`)."""

    @property
    def name(self) -> str: ...

    @property
    def lr(self) -> float: ...

    @property
    def weight_decay(self) -> float: ...

    @property
    def momentum(self) -> float: ...


Parameters = list[nn.Parameter]
Build = Callable[[Parameters, OptimiserOptions], torch.optim.Optimizer]

OPTIMISERS: Registry[Build] = Registry("optimiser")


def _adam(parameters: Parameters, options: OptimiserOptions) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        parameters, lr=options.lr, weight_decay=options.weight_decay, fused=_can_be_fused(parameters)
    )


def _adamw(parameters: Parameters, options: OptimiserOptions) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=options.lr, weight_decay=options.weight_decay, fused=_can_be_fused(parameters)
    )


def _sgd(parameters: Parameters, options: OptimiserOptions) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=options.lr,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        fused=_can_be_fused(parameters),
    )


def _can_be_fused(parameters: Parameters) -> bool:
    # one call a step instead of eight a tensor: a third of the time of a small network's step
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


OPTIMISERS.register("adam", _adam)
OPTIMISERS.register("adamw", _adamw)
OPTIMISERS.register("sgd", _sgd)


def build_optimiser(parameters: Iterable[nn.Parameter], options: OptimiserOptions) -> torch.optim.Optimizer:
    """The optimiser that `options` names, over `parameters`."""
    return OPTIMISERS.get(options.name)(list(parameters), options)
