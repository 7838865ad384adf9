"""The `dirichlet` normaliser: mixture weights drawn from a Dirichlet distribution whose concentrations alpha gives.

Knows tensors only; the record itself stands with the others in `normalisers`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Dirichlet

LOWEST, HIGHEST = 1e-2, 1e3
"""The concentrations that are kept. Far outside them the pathwise gradient of a draw is NaN or has lost its digits: of
1e-4 beside 1e4 one draw in 10,000 had NaN in float32 (torch 2.14), and at 1e-9 all were zero in float64 too."""

_LOWEST_ALPHA, _HIGHEST_ALPHA = math.log(LOWEST), HIGHEST - 1


def concentration(alpha: Tensor) -> Tensor:
    """elu(a) + 1 (Chen et al. 2021, DrNAS, section 3.2), within [LOWEST, HIGHEST]: positive, like alpha (..., K).

    Below zero as exp(a): in float32 the sum of elu and 1 is zero from a = -17 on.
    """
    alpha = project_alpha(alpha)
    return torch.where(alpha < 0, alpha.clamp_max(0).exp(), alpha + 1)


def project_alpha(alpha: Tensor) -> Tensor:
    """The nearest alphas whose concentrations lie within the bounds."""
    # not by clamp, whose gradient is zero at the border itself
    alpha = torch.where(alpha < _LOWEST_ALPHA, _LOWEST_ALPHA, alpha)
    return torch.where(alpha > _HIGHEST_ALPHA, _HIGHEST_ALPHA, alpha)


def weights(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    """One draw for each row of alpha (..., K), with its pathwise gradient; or the mean of the distribution.

    Drawn in float64 whatever alpha is: there a draw within the bounds has always a finite gradient.
    """
    c = concentration(alpha)
    if not sample:
        return c / c.sum(-1, keepdim=True)
    drawn: Tensor = Dirichlet(c.double(), validate_args=False).rsample()
    return drawn.to(alpha.dtype)


def inverse(p: Tensor, temperature: Tensor) -> Tensor:
    """Alphas of the Dirichlet distribution with mean `p` whose concentrations sum to K, as at alpha = 0."""
    c = (p * p.shape[-1]).clamp(LOWEST, HIGHEST)
    return torch.where(c < 1, c.log(), c - 1)
