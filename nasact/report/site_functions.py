"""The functions that the sites of a genotype compute, as arrays for plots. The only file here that knows torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nasact import activations
from nasact.report.genotype_text import weight_rows
from nasact.reserved_names import ORIGINAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nasact.report.plots import Evaluate

MAX_CHANNELS = 64
"""Channels or neurons of one site that are evaluated; if it has more, they are spaced evenly over all of them."""


def genotype_evaluator(genotype: Mapping[str, Any], original_functions: Mapping[str, str] | None = None) -> Evaluate:
    """A function `(site, x) -> y` for a genotype in its plain form; x (n,), y (n,) or (channels, n).

    `original_functions`: site name -> the model's own function at this site.

    NaN if a function is not scalar (softmax), or is a model's own function that is not in the catalogue.
    """

    def evaluate(site: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        gene = genotype["sites"][site]
        functions = [
            (original_functions or {}).get(site, name) if name == ORIGINAL else name for name in gene["functions"]
        ]
        rows = weight_rows(gene["weights"])
        channels = range(0, len(rows), math.ceil(len(rows) / MAX_CHANNELS))
        weights = torch.tensor([rows[i] for i in channels], dtype=torch.float64)
        points = torch.from_numpy(x)
        total = torch.zeros(len(channels), len(x), dtype=torch.float64)
        for name, weight in zip(functions, weights.T, strict=True):
            values = _values(name, points, gene.get("betas") or {}, channels)
            # A function with weight 0 is not part of the site, so its NaN must not count.
            total = total + torch.where(weight[:, None] != 0, weight[:, None] * values, torch.zeros(()))
        return (total[0] if len(channels) == 1 else total).numpy()

    return evaluate


def original_evaluator(functions: Mapping[str, str]) -> Evaluate:
    """A function `(site, x) -> y` for a model's own functions, `{site: name}`: the reference of the learned ones."""
    sites = {site: {"functions": [name], "weights": [1.0]} for site, name in functions.items()}
    return genotype_evaluator({"sites": sites})


def _values(name: str, x: torch.Tensor, betas: Mapping[str, Any], channels: Sequence[int]) -> torch.Tensor:
    """f(x) for each of `channels`: (channels, n), or (1, n) if all channels share one beta."""
    candidate = activations.get(name) if name in activations.names() else None
    if candidate is None or not candidate.elementwise:
        return torch.full((1, len(x)), math.nan, dtype=torch.float64)
    beta_columns = []
    for beta in candidate.betas:
        learnt = [value for row in weight_rows(betas.get(f"{name}_{beta.name}", beta.init)) for value in row]
        values = learnt if len(learnt) == 1 else [learnt[i] for i in channels]
        beta_columns.append(torch.tensor(values, dtype=torch.float64)[:, None])
    with torch.no_grad():
        return candidate(x.expand(1, -1), *beta_columns)
