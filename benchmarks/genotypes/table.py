"""The genotype table: the accuracy of every genotype of a small network, and the rank of one among all of them.

Knows its CSV file only; knows neither nasact nor how the numbers were measured (build_table.py).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSV = HERE / "table.csv"

Names = tuple[str, ...]
ACCURACIES = ("val", "test", "val_twice", "test_twice")
"""Accuracies on the validation and on the test images, after the budget and after twice the budget of epochs."""


@dataclass(frozen=True)
class Row:
    """One trained network: its function at each site, its seed, and its accuracies (fractions) by name."""

    functions: Names
    seed: int
    accuracy: dict[str, float]


@dataclass(frozen=True)
class Table:
    """All rows. A genotype is a tuple of function names, in site order; its numbers are means over the seeds.

    `by`: the accuracy that genotypes are ranked by. A search may see `val` only.
    """

    rows: tuple[Row, ...]
    by: str = "test"

    @classmethod
    def load(cls, path: Path = CSV, *, by: str = "test") -> Table:
        with path.open(newline="") as file:
            return cls(tuple(_row(cells) for cells in csv.DictReader(file)), by)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({row.seed for row in self.rows}))

    @cached_property
    def genotypes(self) -> tuple[Names, ...]:
        """Each genotype once, in the order of the file."""
        return tuple(dict.fromkeys(row.functions for row in self.rows))

    @cached_property
    def functions(self) -> Names:
        """The candidates: every name that occurs at any site."""
        return tuple(dict.fromkeys(name for genotype in self.genotypes for name in genotype))

    def column(self, accuracy: str, seeds: Iterable[int] | None = None) -> dict[Names, float]:
        """The mean `accuracy` of every genotype over `seeds` (default: all)."""
        chosen = set(self.seeds if seeds is None else seeds)
        accuracies: dict[Names, list[float]] = {genotype: [] for genotype in self.genotypes}
        for row in self.rows:
            if row.seed in chosen:
                accuracies[row.functions].append(row.accuracy[accuracy])
        return {genotype: sum(values) / len(values) for genotype, values in accuracies.items()}

    @cached_property
    def _means(self) -> dict[Names, float]:
        return self.column(self.by)

    def accuracy(self, genotype: Sequence[str]) -> float:
        """The mean over seeds. Raises a KeyError with the genotype if the table does not hold it."""
        return self._means[tuple(genotype)]

    def rank(self, genotype: Sequence[str]) -> int:
        """One more than the number of better genotypes: 1 is the best."""
        own = self.accuracy(genotype)
        return 1 + sum(value > own for value in self._means.values())

    def percentile(self, genotype: Sequence[str]) -> float:
        """The per cent of the other genotypes that are better: 0 is the best genotype, 100 the worst."""
        return 100 * (self.rank(genotype) - 1) / (len(self.genotypes) - 1)

    def regret(self, genotype: Sequence[str]) -> float:
        """The best accuracy minus that of this genotype, as a fraction, at least 0."""
        return max(self._means.values()) - self.accuracy(genotype)


def _row(cells: dict[str, str]) -> Row:
    sites = [name for name in cells if name.startswith("site")]
    accuracy = {name: float(cells[name]) for name in ACCURACIES}
    return Row(tuple(cells[site] for site in sites), int(cells["seed"]), accuracy)


def write(rows: Sequence[Row], path: Path = CSV) -> None:
    """Write one line per network. Four decimals are exact: accuracies are counted on 10,000 images."""
    sites = [f"site{number}" for number in range(1, 1 + len(rows[0].functions))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*sites, "seed", *ACCURACIES])
        for row in rows:
            writer.writerow([*row.functions, row.seed, *(f"{row.accuracy[name]:.4f}" for name in ACCURACIES)])
