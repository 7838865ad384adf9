"""Derive: from the supernet's mixture weights to a discrete genotype, by keeping the top k functions of each row.

Ways that train or validate on the way are in the room `derivation`; this one looks at weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nasact.errors import GenotypeError
from nasact.mixture import NORMALISERS, Bank, Mixture
from nasact.supernet.genotype import Genotype, SiteGene
from nasact.supernet.supernet import Supernet

TopK = int | Literal["all"]


def keep_top(p: Tensor, top_k: int) -> Tensor:
    """`p` (..., K) with all but its `top_k` largest magnitudes a row set to zero; the first wins a tie."""
    order = p.abs().argsort(dim=-1, descending=True, stable=True)[..., :top_k]
    kept = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, order, True)
    return torch.where(kept, p, torch.zeros_like(p))


def kept_count(site: str, mixture: Mixture, top_k: TopK) -> int:
    """How many functions `top_k` means at this site ("all": those alive); GenotypeError where it has not as many."""
    count = int(mixture.alive.sum())
    k = count if top_k == "all" else top_k
    if not 1 <= k <= count:
        dropped = len(mixture.names) - count
        whose = f"its candidates, {dropped} having been dropped in the search" if dropped else "its candidates"
        raise GenotypeError(f"site {site!r}: top_k must be between 1 and {count} ({whose}), but got {top_k}")
    return k


def derived_weights(supernet: Supernet, top_k: TopK = 1) -> dict[str, Tensor]:
    """The kept weights of each site, (*layout.shape, K) in float64 on the CPU, renormalised; zero where not kept."""
    weights = {}
    for name, mixture in supernet.mixtures().items():
        kept = keep_top(mixture.weights().double().cpu(), kept_count(name, mixture, top_k))
        weights[name] = NORMALISERS.get(mixture.normaliser_name).renormalise(kept, f"site {name!r}")
    return weights


def genotype_of(
    banks: Mapping[str, Bank], weights: Mapping[str, Tensor], *, normaliser: str, top_k: TopK = 1
) -> Genotype:
    """The genotype with these weights, site name to (*layout.shape, K), and with the betas that the banks have now."""
    sites: dict[str, SiteGene] = {}
    for name, bank in banks.items():
        betas = {key: beta.detach().double().cpu() for key, beta in bank.betas.items()}
        sites[name] = SiteGene.make(bank.names, weights[name], betas, bank.layout)
    level = next(iter(banks.values())).layout.level
    return Genotype(sites=sites, level=level, normaliser=normaliser, top_k=top_k)


def derive(supernet: Supernet, top_k: TopK = 1) -> Genotype:
    """The genotype of the `top_k` heaviest functions of every site (of every channel or unit at those levels).

    The kept weights are renormalised as the normaliser promises (sum one; sum of magnitudes one for `abs`; left alone
    for `free` and `sigmoid`) and frozen. Magnitude is the rule of DARTS (arXiv:1806.09055, section 2.4) and paper 001.

    What the search dropped is never kept. Raises GenotypeError for a `top_k` below 1 or above the number of candidates
    alive, MixtureError where the kept weights cannot be normalised.
    """
    mixtures = supernet.mixtures()
    banks = {name: mixture.bank for name, mixture in mixtures.items()}
    normaliser = next(iter(mixtures.values())).normaliser_name
    return genotype_of(banks, derived_weights(supernet, top_k), normaliser=normaliser, top_k=top_k)
