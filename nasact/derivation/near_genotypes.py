"""Genotypes that the weights of a supernet nearly say: near ties a site, and the likeliest of all their combinations.

Pure functions of weights; trains and validates nothing.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from nasact.errors import MixtureError
from nasact.mixture import Layout, Mixture
from nasact.mixture.kernels import ORIGINAL
from nasact.supernet import Genotype, SiteGene, Supernet
from nasact.supernet.derivation import TopK, genotype_of, keep_top, kept_count
from nasact.supernet.probe import keep

Rated = tuple[float, Tensor]
"""What an alternative falls short by, at least 0, and its weights (*layout.shape, K)."""


def original_genotype(supernet: Supernet) -> Genotype:
    """Every searched site as the model has it."""
    return _uniform(supernet, {site.name: site.function for site in supernet.sites})


def _uniform(supernet: Supernet, functions: Mapping[str, str]) -> Genotype:
    """One function a site, by its name, with betas at their start."""
    sites = {}
    for site, mixture in supernet.mixtures().items():
        layout = Layout(channel_dim=mixture.bank.layout.channel_dim)
        sites[site] = SiteGene.make((functions[site],), torch.ones(1), {}, layout)
    return Genotype(sites=sites, level="layer", normaliser="softmax", top_k=1)


def uniform_genotypes(supernet: Supernet) -> list[Genotype]:
    """One function at all sites, for each that every site has among its candidates, in the order of the bank.

    Those that the search dropped are among them: what is asked is whether it was right.
    """
    mixtures = supernet.mixtures()
    banks = [mixture.names for mixture in mixtures.values()]
    common = [name for name in banks[0] if name != ORIGINAL and all(name in names for names in banks)]
    return [_uniform(supernet, dict.fromkeys(mixtures, name)) for name in common]


def near_ties(site: str, mixture: Mixture, top_k: TopK, margin: float) -> list[Rated]:
    """The choices of a site that are within `margin` of its best, the best first: what `derive` would keep.

    The others exchange the last function that is kept for another one, whose weight |p| is at least `1 - margin` of
    that one's; at level channel and neuron for all rows at once, with the mean over rows for its weight. A choice with
    weight q in the place of p falls short by log(p / q).
    """
    p = mixture.weights().double().cpu()
    k = kept_count(site, mixture, top_k)
    best = mixture.normaliser.renormalise(keep_top(p, k), f"site {site!r}")
    found: list[Rated] = [(0.0, best)]
    top = keep_top(p, k) != 0
    fixed = keep_top(p, k - 1) != 0
    weight = p.abs().reshape(-1, p.shape[-1]).mean(dim=0)
    last = (torch.where(top & ~fixed, p.abs(), 0.0)).sum(dim=-1).mean().item()
    for one in sorted(range(len(weight)), key=lambda one: (-weight[one].item(), one)):
        if weight[one].item() < (1 - margin) * last or weight[one].item() == 0:
            continue  # what weighs nothing was dropped by the search: no tie, however wide the margin
        chosen = fixed.clone()
        chosen[..., one] = True
        # a row that keeps this one anyway has nothing to exchange
        chosen = torch.where(fixed[..., one : one + 1], top, chosen)
        try:
            weights = keep(p, chosen, mixture.normaliser, f"site {site!r}")
        except MixtureError:
            continue  # weights of both signs that cancel: no choice at all
        if not any(torch.equal(weights, other) for _, other in found):
            found.append((max(0.0, math.log(last / weight[one].item())) if last > 0 else 0.0, weights))
    return sorted(found, key=lambda rated: rated[0])


def likeliest(choices: Sequence[Sequence[float]]) -> Iterator[tuple[int, ...]]:
    """Every way to take one of each, by rising sum; each sequence of shortfalls must rise. Equal sums in the order of
    their indices. Takes time and memory for what is asked of it, not for all combinations."""
    start = (0,) * len(choices)
    waiting, seen = [(sum(one[0] for one in choices), start)], {start}
    while waiting:
        _, taken = heapq.heappop(waiting)
        yield taken
        for place, index in enumerate(taken):
            after = (*taken[:place], index + 1, *taken[place + 1 :])
            if index + 1 < len(choices[place]) and after not in seen:
                seen.add(after)
                heapq.heappush(waiting, (sum(one[i] for one, i in zip(choices, after, strict=True)), after))


def near_genotypes(supernet: Supernet, top_k: TopK, margin: float, most: int) -> list[Genotype]:
    """At most `most` genotypes made of near ties, the likeliest first: the first is what `derive` gives."""
    mixtures = supernet.mixtures()
    rated = {site: near_ties(site, mixture, top_k, margin) for site, mixture in mixtures.items()}
    banks = {site: mixture.bank for site, mixture in mixtures.items()}
    normaliser = next(iter(mixtures.values())).normaliser_name
    found = []
    for taken in islice(likeliest([[short for short, _ in choices] for choices in rated.values()]), most):
        weights = {site: choices[index][1] for (site, choices), index in zip(rated.items(), taken, strict=True)}
        found.append(genotype_of(banks, weights, normaliser=normaliser, top_k=top_k))
    return found


def same_functions(one: Genotype, other: Genotype) -> bool:
    """Whether both put the same single function at every site: then they are one network."""
    if one.sites.keys() != other.sites.keys():
        return False
    pairs = [(gene.single, other.sites[name].single) for name, gene in one.sites.items()]
    return all(first is not None and first == second for first, second in pairs)
