"""The table of a genotype: the chosen functions of each site, with their weights and learnt parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasact.report import statistics
from nasact.report.genotype_text import site_means, weight_rows
from nasact.report.table import Column, Table


def genotype_table(genotype: Mapping[str, Any], title: str = "Genotype") -> Table:
    """One row per site, functions by decreasing weight; `genotype` is the plain form (`Genotype.to_dict()`)."""
    rows = []
    parameterised = any(gene.get("betas") for gene in genotype["sites"].values())
    for site, gene in genotype["sites"].items():
        functions = list(gene["functions"])
        vectors = weight_rows(gene.get("weights") or [1.0 / len(functions)] * len(functions))
        means = site_means(vectors)
        order = sorted(range(len(functions)), key=lambda k: -abs(means[k]))
        row = (
            site,
            ", ".join(functions[k] for k in order),
            ", ".join(_mean_text([weights[k] for weights in vectors]) for k in order),
        )
        rows.append((*row, _betas_text(gene.get("betas") or {})) if parameterised else row)
    columns = (Column(header="site"), Column(header="functions", long="wrap"), Column(header="weights", long="wrap"))
    kind = ", ".join(f"{key} {genotype[key]}" for key in ("level", "normaliser", "top_k") if key in genotype)
    return Table(
        title=f"{title} ({kind})" if kind else title,
        columns=(*columns, Column(header="parameters", long="wrap")) if parameterised else columns,
        rows=tuple(rows),
    )


def _mean_text(values: Sequence[float]) -> str:
    """Mean of the values over channels or neurons, with ± their standard deviation if they differ."""
    spread = statistics.std(values)
    return f"{statistics.mean(values):.3f}" + (f" ± {spread:.3f}" if spread > 5e-4 else "")


def _betas_text(betas: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {_mean_text([entry for row in weight_rows(value) for entry in row])}" for name, value in betas.items()
    )
