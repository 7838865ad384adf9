"""What the sites of a genotype compute, as arrays for `plots.learned_shapes`. The one file here that knows torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nasact import activations
from nasact.report.genotype_text import weight_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 64
"""Channels or units of one site that are evaluated, evenly spread over all of them."""

Evaluate = Callable[[str, "NDArray[np.float64]"], "NDArray[np.float64]"]


def evaluator(genotype: Mapping[str, Any], original_functions: Mapping[str, str] | None = None) -> Evaluate:
    """`(site, x (n,)) -> (n,)`, or (channels, n), for a genotype in its plain form.

    `original_functions`: site name -> the model's own function there.

    NaN where there is no scalar function to draw: a coupled one (softmax), or a model's own outside the catalogue.
    """

    def evaluate(site: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        gene = genotype["sites"][site]
        functions = [
            (original_functions or {}).get(site, name) if name == "original" else name for name in gene["functions"]
        ]
        rows = weight_rows(gene["weights"])
        chosen = range(0, len(rows), math.ceil(len(rows) / MOST_ROWS))
        weights = torch.tensor([rows[i] for i in chosen], dtype=torch.float64)
        points = torch.from_numpy(x)
        total = torch.zeros(len(chosen), len(x), dtype=torch.float64)
        for name, weight in zip(functions, weights.T, strict=True):
            values = _values(name, points, gene.get("betas") or {}, chosen)
            # A function without weight is not part of the site: no NaN from it.
            total = total + torch.where(weight[:, None] != 0, weight[:, None] * values, torch.zeros(()))
        return (total[0] if len(chosen) == 1 else total).numpy()

    return evaluate


def original_shapes(functions: Mapping[str, str]) -> Evaluate:
    """The same for a model's own functions, `{site: name}`: the reference behind the learned shapes."""
    sites = {site: {"functions": [name], "weights": [1.0]} for site, name in functions.items()}
    return evaluator({"sites": sites})


def _values(name: str, x: torch.Tensor, betas: Mapping[str, Any], rows: Sequence[int]) -> torch.Tensor:
    """f(x) for each of the chosen rows: (1, n), or (rows, n) where betas differ."""
    candidate = activations.get(name) if name in activations.names() else None
    if candidate is None or not candidate.elementwise:
        return torch.full((1, len(x)), math.nan, dtype=torch.float64)
    given = []
    for beta in candidate.betas:
        learnt = [value for row in weight_rows(betas.get(f"{name}_{beta.name}", beta.init)) for value in row]
        given.append(
            torch.tensor(learnt if len(learnt) == 1 else [learnt[i] for i in rows], dtype=torch.float64)[:, None]
        )
    with torch.no_grad():
        return candidate(x.expand(1, -1), *given)
