"""Derive: from the supernet's mixture weights to a discrete genotype, by keeping the top k functions of each row."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nasact.errors import GenotypeError
from nasact.mixture import NORMALISERS
from nasact.supernet.genotype import Genotype, SiteGene
from nasact.supernet.supernet import Supernet


def keep_top(p: Tensor, top_k: int) -> Tensor:
    """`p` (..., K) with all but its `top_k` largest magnitudes a row set to zero; the first wins a tie."""
    order = p.abs().argsort(dim=-1, descending=True, stable=True)[..., :top_k]
    kept = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, order, True)
    return torch.where(kept, p, torch.zeros_like(p))


def derive(supernet: Supernet, top_k: int | Literal["all"] = 1) -> Genotype:
    """The genotype of the `top_k` heaviest functions of every site (of every channel or unit at those levels).

    The kept weights are renormalised as the normaliser promises (sum one; sum of magnitudes one for `abs`; left alone
    for `free` and `sigmoid`) and frozen. Magnitude is the rule of DARTS (arXiv:1806.09055, section 2.4) and paper 001.

    What the search dropped is never kept. Raises GenotypeError for a `top_k` below 1 or above the number of candidates
    alive, MixtureError where the kept weights cannot be normalised.
    """
    sites: dict[str, SiteGene] = {}
    normaliser_name = ""
    layouts = {}
    for name, mixture in supernet.mixtures().items():
        count = int(mixture.alive.sum())
        k = count if top_k == "all" else top_k
        if not 1 <= k <= count:
            dropped = len(mixture.names) - count
            whose = f"its candidates, {dropped} having been dropped in the search" if dropped else "its candidates"
            raise GenotypeError(f"site {name!r}: top_k must be between 1 and {count} ({whose}), but got {top_k}")
        normaliser_name = mixture.normaliser_name
        kept = keep_top(mixture.weights().double().cpu(), k)
        weights = NORMALISERS.get(normaliser_name).renormalise(kept, f"site {name!r}")
        layouts[name] = mixture.bank.layout
        betas = {key: beta.detach().double().cpu() for key, beta in mixture.bank.betas.items()}
        sites[name] = SiteGene.make(mixture.names, weights, betas, mixture.bank.layout)
    level = next(iter(layouts.values())).level
    return Genotype(sites=sites, level=level, normaliser=normaliser_name, top_k=top_k)
