"""The `dirichlet` normaliser: mixture weights drawn from a Dirichlet distribution; alpha sets its concentrations.

Knows tensors only; its record is in `normalisers`, with the others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Dirichlet

LOWEST, HIGHEST = 1e-2, 1e3
"""The bounds of the concentrations. Far outside them the pathwise gradient of a draw is NaN or inaccurate: with
concentrations 1e-4 and 1e4 one draw in 10,000 had NaN in float32 (torch 2.14); at 1e-9 all draws were zero, also in
float64."""

_LOWEST_ALPHA, _HIGHEST_ALPHA = math.log(LOWEST), HIGHEST - 1


def concentration(alpha: Tensor) -> Tensor:
    """Return elu(a) + 1 (Chen et al. 2021, DrNAS, section 3.2), within [LOWEST, HIGHEST], like alpha (..., K).

    For a < 0 computed as exp(a): in float32 the sum of elu(a) and 1 is zero for a < -17.
    """
    alpha = project_alpha(alpha)
    return torch.where(alpha < 0, alpha.clamp_max(0).exp(), alpha + 1)


def project_alpha(alpha: Tensor) -> Tensor:
    """Return the nearest alphas whose concentrations are within the bounds."""
    # not by clamp: its gradient is zero at the bound itself
    alpha = torch.where(alpha < _LOWEST_ALPHA, _LOWEST_ALPHA, alpha)
    return torch.where(alpha > _HIGHEST_ALPHA, _HIGHEST_ALPHA, alpha)


def weights(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    """Return one draw per row of alpha (..., K), with its pathwise gradient; without `sample` the distribution's mean.

    Drawn in float64 for every dtype of alpha: in float64 a draw within the bounds always has a finite gradient.
    """
    c = concentration(alpha)
    if not sample:
        return c / c.sum(-1, keepdim=True)
    drawn: Tensor = Dirichlet(c.double(), validate_args=False).rsample()
    return drawn.to(alpha.dtype)


def inverse(p: Tensor, temperature: Tensor) -> Tensor:
    """Return alphas of the Dirichlet distribution with mean `p` whose concentrations sum to K, as at alpha = 0."""
    c = (p * p.shape[-1]).clamp(LOWEST, HIGHEST)
    return torch.where(c < 1, c.log(), c - 1)
