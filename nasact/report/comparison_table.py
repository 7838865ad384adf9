"""The table of a comparison: test accuracy of each variant over the seeds, and which differences are significant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nasact.report import statistics
from nasact.report.comparison import derived_contrasts, derived_first, variant_functions, variant_labels
from nasact.report.number_text import MISSING, interval_text, p_text, percent_text, points_text
from nasact.report.table import Column, Table


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """One row per variant, the derived network first; `comparison` is the plain form (`Comparison.to_dict()`)."""
    variants: Mapping[str, Mapping[str, Any]] = comparison["variants"]
    contrasts = {contrast.other: contrast for contrast in derived_contrasts(comparison)}
    columns = (
        Column(header="variant", long="wrap"),
        Column(header="functions", long="wrap", hidden_below=100),
        Column(header="test acc. %", right=True),
        Column(header="95 % interval", right=True),
        Column(header="n", right=True, hidden_below=100),
        Column(header="diff.", right=True),
        Column(header="Holm p", right=True),
        Column(
            header="verdict",
            long="wrap",
            styles={f"derived {statistics.BETTER}": "green", f"derived {statistics.WORSE}": "red"},
        ),
    )
    labels = variant_labels(comparison)
    seeds = _seeds_text(variants.values())
    rows = tuple(_row(labels[name], variants[name], contrasts.get(name)) for name in derived_first(variants))
    return Table(
        title=f"Test accuracy over {seeds}, each network retrained from scratch at equal budget",
        columns=columns,
        rows=rows,
        notes=(*_diverged_notes(labels, variants), *_too_few_seeds_note(list(contrasts.values()))),
    )


def _row(label: str, variant: Mapping[str, Any], contrast: statistics.Contrast | None) -> tuple[str, ...]:
    accuracies = variant["test_accuracies"]
    mean_and_std = (statistics.mean(accuracies), statistics.std(accuracies)) if accuracies else None
    return (
        label,
        variant_functions(variant),
        " ± ".join(map(percent_text, mean_and_std)) if mean_and_std else MISSING,
        interval_text(statistics.ci95(accuracies) if accuracies else None),
        str(len(accuracies)),
        points_text(contrast.difference) if contrast else "",
        p_text(contrast.p_holm) if contrast else "",
        _short_verdict(contrast) if contrast else "",
    )


def _short_verdict(contrast: statistics.Contrast) -> str:
    if contrast.too_few_seeds:
        return "too few seeds"
    return contrast.text if contrast.verdict == statistics.UNDECIDED else f"derived {contrast.verdict}"


def _seeds_text(variants: Iterable[Mapping[str, Any]]) -> str:
    """`1 seed`, `5 seeds`, or `3 to 5 seeds` if the variants differ."""
    counts = sorted({len(variant["test_accuracies"]) for variant in variants})
    return " to ".join(map(str, counts[:1] + counts[1:][-1:])) + (" seed" if counts == [1] else " seeds")


def _diverged_notes(labels: Mapping[str, str], variants: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(
        f"{labels[name]}: {_diverged_count(variant['diverged'])} of {len(variant['test_accuracies'])} runs diverged; "
        "each counts as accuracy 0."
        for name, variant in variants.items()
        if variant.get("diverged")
    )


def _diverged_count(diverged: int | Sequence[int]) -> int:
    """Number of runs: the result document has the number, `Comparison.to_dict()` the seeds."""
    return diverged if isinstance(diverged, int) else len(diverged)


def _too_few_seeds_note(contrasts: Sequence[statistics.Contrast]) -> tuple[str, ...]:
    undecidable = [contrast for contrast in contrasts if contrast.too_few_seeds]
    if not undecidable:
        return ()
    reason = undecidable[0].text.removeprefix("too few seeds to tell (").removesuffix(")")
    comparisons = f"{len(contrasts)} comparisons need" if len(contrasts) > 1 else "the comparison needs"
    needed = statistics.seeds_needed(len(contrasts))
    return (
        f"Too few seeds: {reason}; {comparisons} compare.seeds of {needed} or more before any difference can be "
        "significant.",
    )
