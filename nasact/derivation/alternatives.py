"""Alternatives to the genotype of the largest weights: near ties at each site, and the likeliest combinations of them.

Pure functions of a supernet's mixture weights; nothing is trained or evaluated.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from nasact.errors import MixtureError
from nasact.mixture import Layout, Mixture
from nasact.reserved_names import ORIGINAL
from nasact.supernet import Genotype, SiteGene, Supernet
from nasact.supernet.top_k import TopK, build_genotype, keep_chosen, keep_top_k, resolve_top_k


class Alternative(NamedTuple):
    """One choice of functions for a site."""

    shortfall: float
    """log(p / q), at least 0: the choice has a function of weight q where the best choice has one of weight p."""
    weights: Tensor
    """(*layout.shape, K), renormalised; zero where a function is not kept."""


def original_genotype(supernet: Supernet) -> Genotype:
    """The genotype with the model's own function at every searched site."""
    return _uniform(supernet, {site.name: site.function for site in supernet.sites})


def _uniform(supernet: Supernet, functions: Mapping[str, str]) -> Genotype:
    """The genotype with one function per site, given by its name, with betas at their initial values."""
    sites = {}
    for site, mixture in supernet.mixtures().items():
        layout = Layout(channel_dim=mixture.bank.layout.channel_dim)
        sites[site] = SiteGene.make((functions[site],), torch.ones(1), {}, layout)
    return Genotype(sites=sites, level="layer", normaliser="softmax", top_k=1)


def uniform_genotypes(supernet: Supernet) -> list[Genotype]:
    """For each function that all sites have as a candidate, the genotype with this function everywhere.

    In the order of the bank. Functions that the search dropped are included: the search may have been wrong.
    """
    mixtures = supernet.mixtures()
    banks = [mixture.names for mixture in mixtures.values()]
    common = [name for name in banks[0] if name != ORIGINAL and all(name in names for names in banks)]
    return [_uniform(supernet, dict.fromkeys(mixtures, name)) for name in common]


def site_alternatives(site: str, mixture: Mixture, top_k: TopK, margin: float) -> list[Alternative]:
    """The choices for a site that are within `margin` of the best one, which is what `derive` keeps. The best is first.

    Every other choice exchanges the last kept function, of weight p, for a function of weight q >= (1 - margin) * p.
    At level channel and neuron all rows exchange the function together, and weights are means over rows of |p|.
    """
    p = mixture.weights().double().cpu()
    k = resolve_top_k(site, mixture, top_k)
    best = mixture.normaliser.renormalise(keep_top_k(p, k), f"site {site!r}")
    alternatives = [Alternative(0.0, best)]
    top = keep_top_k(p, k) != 0
    fixed = keep_top_k(p, k - 1) != 0
    weight = p.abs().reshape(-1, p.shape[-1]).mean(dim=0)
    last = (torch.where(top & ~fixed, p.abs(), 0.0)).sum(dim=-1).mean().item()
    for index in sorted(range(len(weight)), key=lambda index: (-weight[index].item(), index)):
        if weight[index].item() < (1 - margin) * last or weight[index].item() == 0:
            continue  # a function of weight 0 was dropped by the search: no alternative, however large the margin
        chosen = fixed.clone()
        chosen[..., index] = True
        # a row that keeps this function anyway has nothing to exchange
        chosen = torch.where(fixed[..., index : index + 1], top, chosen)
        try:
            weights = keep_chosen(p, chosen, mixture.normaliser, f"site {site!r}")
        except MixtureError:
            continue  # weights of both signs cancel and cannot be renormalised
        if not any(torch.equal(weights, known.weights) for known in alternatives):
            shortfall = max(0.0, math.log(last / weight[index].item())) if last > 0 else 0.0
            alternatives.append(Alternative(shortfall, weights))
    return sorted(alternatives, key=lambda alternative: alternative.shortfall)


def combinations_by_shortfall(shortfalls: Sequence[Sequence[float]]) -> Iterator[tuple[int, ...]]:
    """Every combination of one index per sequence, sorted by the sum of the shortfalls at these indices.

    Each sequence must be sorted. Equal sums are sorted by their indices. A best-first search: time and memory grow with
    the combinations that are consumed, not with their total number.
    """
    start = (0,) * len(shortfalls)
    queue, seen = [(sum(sequence[0] for sequence in shortfalls), start)], {start}
    while queue:
        _, indices = heapq.heappop(queue)
        yield indices
        for place, index in enumerate(indices):
            following = (*indices[:place], index + 1, *indices[place + 1 :])
            if index + 1 < len(shortfalls[place]) and following not in seen:
                seen.add(following)
                total = sum(sequence[i] for sequence, i in zip(shortfalls, following, strict=True))
                heapq.heappush(queue, (total, following))


def likeliest_genotypes(supernet: Supernet, top_k: TopK, margin: float, limit: int) -> list[Genotype]:
    """At most `limit` combinations of the sites' alternatives, the likeliest first (what `derive` returns)."""
    mixtures = supernet.mixtures()
    alternatives = {site: site_alternatives(site, mixture, top_k, margin) for site, mixture in mixtures.items()}
    banks = {site: mixture.bank for site, mixture in mixtures.items()}
    normaliser = next(iter(mixtures.values())).normaliser_name
    shortfalls = [[choice.shortfall for choice in choices] for choices in alternatives.values()]
    genotypes = []
    for indices in islice(combinations_by_shortfall(shortfalls), limit):
        chosen = zip(alternatives.items(), indices, strict=True)
        weights = {site: choices[index].weights for (site, choices), index in chosen}
        genotypes.append(build_genotype(banks, weights, normaliser=normaliser, top_k=top_k))
    return genotypes


def same_functions(first: Genotype, second: Genotype) -> bool:
    """Whether both genotypes have the same single function at every site: they then describe the same network."""
    if first.sites.keys() != second.sites.keys():
        return False
    pairs = [(gene.single, second.sites[name].single) for name, gene in first.sites.items()]
    return all(function is not None and function == other for function, other in pairs)
