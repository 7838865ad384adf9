"""From mixture weights to a discrete genotype: keep the top k functions of each row by magnitude, and renormalise.

Methods that train or validate are in the room nasact/derivation; this module only knows the mixture weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from nasact.errors import GenotypeError
from nasact.mixture import NORMALISERS, Bank, Mixture, Normaliser
from nasact.supernet.genotype import Genotype, SiteGene
from nasact.supernet.supernet import Supernet

TopK = int | Literal["all"]


def keep_top_k(p: Tensor, k: int) -> Tensor:
    """`p` (..., K) with all but the `k` largest magnitudes of each row set to zero; the first function wins a tie."""
    order = p.abs().argsort(dim=-1, descending=True, stable=True)[..., :k]
    kept = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, order, True)
    return torch.where(kept, p, torch.zeros_like(p))


def keep_chosen(weights: Tensor, chosen: Tensor, normaliser: Normaliser, where: str) -> Tensor:
    """`weights` (..., K) of only the `chosen` functions (..., K, bool), renormalised, in float64.

    In a row where all chosen functions have weight zero, each of them gets the same weight: a method other than
    magnitude may choose a function to which the search gave no weight. `where` names the site in a MixtureError.
    """
    weights = weights.double().cpu()
    kept = torch.where(chosen, weights, torch.zeros_like(weights))
    no_weight = (kept == 0).all(dim=-1, keepdim=True)
    equal = chosen.double() / chosen.sum(dim=-1, keepdim=True).clamp_min(1)
    return normaliser.renormalise(torch.where(no_weight, equal, kept), where)


def resolve_top_k(site: str, mixture: Mixture, top_k: TopK) -> int:
    """The number of functions that `top_k` keeps at this site; "all": the remaining candidates.

    GenotypeError if it is below 1 or above the number of remaining candidates.
    """
    count = int(mixture.alive.sum())
    k = count if top_k == "all" else top_k
    if not 1 <= k <= count:
        dropped = len(mixture.names) - count
        explanation = "the number of its candidates" + (f"; the search dropped {dropped}" if dropped else "")
        raise GenotypeError(f"site {site!r}: top_k must be between 1 and {count} ({explanation}), but got {top_k}")
    return k


def derive_weights(supernet: Supernet, top_k: TopK = 1) -> dict[str, Tensor]:
    """The kept weights of each site, renormalised, 0 for the others: (*layout.shape, K) in float64 on the CPU."""
    weights = {}
    for name, mixture in supernet.mixtures().items():
        kept = keep_top_k(mixture.weights().double().cpu(), resolve_top_k(name, mixture, top_k))
        weights[name] = NORMALISERS.get(mixture.normaliser_name).renormalise(kept, f"site {name!r}")
    return weights


def build_genotype(
    banks: Mapping[str, Bank], weights: Mapping[str, Tensor], *, normaliser: str, top_k: TopK = 1
) -> Genotype:
    """The genotype with these weights, site name to (*layout.shape, K), and with the current betas of the banks."""
    sites: dict[str, SiteGene] = {}
    for name, bank in banks.items():
        betas = {key: beta.detach().double().cpu() for key, beta in bank.betas.items()}
        sites[name] = SiteGene.make(bank.names, weights[name], betas, bank.layout)
    level = next(iter(banks.values())).layout.level
    return Genotype(sites=sites, level=level, normaliser=normaliser, top_k=top_k)


def derive(supernet: Supernet, top_k: TopK = 1) -> Genotype:
    """Derive the genotype with the `top_k` heaviest functions of every site (of every channel or unit at those levels).

    The kept weights are renormalised to the total of the normaliser (sum 1; sum of magnitudes 1 for `abs`; unchanged
    for `free` and `sigmoid`) and frozen. Magnitude is the rule of DARTS (arXiv:1806.09055, section 2.4) and paper 001.

    Candidates that the search dropped are never kept. Raises GenotypeError for a `top_k` below 1 or above the number of
    remaining candidates, MixtureError where the kept weights cannot be normalised.
    """
    mixtures = supernet.mixtures()
    banks = {name: mixture.bank for name, mixture in mixtures.items()}
    normaliser = next(iter(mixtures.values())).normaliser_name
    return build_genotype(banks, derive_weights(supernet, top_k), normaliser=normaliser, top_k=top_k)
