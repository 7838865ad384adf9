"""The tables of a study: comparison, genotype, trials, as rows of text.

Built from plain mappings (the `to_dict` forms of comparisons, genotypes, trials), so that they print without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from nasact.report import statistics
from nasact.report.genotype_text import genotype_text, site_means, weight_rows
from nasact.report.table import Column, Table
from nasact.trial_status import TrialScore, best_trial

DERIVED = "derived"
NOTHING = "–"


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """The derived network beside its baselines: test accuracy over seeds, and what the differences prove."""
    variants: Mapping[str, Mapping[str, Any]] = comparison["variants"]
    contrasts = {contrast.other: contrast for contrast in contrasts_of(comparison)}
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
    names = sorted(variants, key=lambda name: name != DERIVED)  # stable: the others keep their order
    labels = variant_labels(comparison)
    rows = tuple(_comparison_row(labels[name], variants[name], contrasts.get(name)) for name in names)
    seeds = _seeds_text(variants.values())
    return Table(
        title=f"Test accuracy over {seeds}, each network retrained from scratch at equal budget",
        columns=columns,
        rows=rows,
        notes=(*_diverged_notes(labels, variants), *_comparison_notes(list(contrasts.values()))),
    )


def _seeds_text(variants: Iterable[Mapping[str, Any]]) -> str:
    counts = sorted({len(variant["test_accuracies"]) for variant in variants})
    return " to ".join(map(str, counts[:1] + counts[1:][-1:])) + (" seed" if counts == [1] else " seeds")


def variant_labels(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Short names of the variants, the same in every table and plot."""
    best = comparison.get("best_single")
    labels = {name: name.replace("_", " ") for name in comparison["variants"]}
    return labels | ({"best_single": f"best single ({best})"} if best and "best_single" in labels else {})


def variant_functions(variant: Mapping[str, Any]) -> str:
    """The functions of a variant, whose genotypes may differ from seed to seed."""
    if "functions" in variant:
        return str(variant["functions"])  # the form of the result document
    genotypes = variant.get("genotypes") or [variant.get("genotype")]
    return genotype_text(genotypes[0]) if len(genotypes) == 1 else "drawn anew for each seed"


def _diverged_notes(labels: Mapping[str, str], variants: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(
        f"{labels[name]}: {_count(variant['diverged'])} of {len(variant['test_accuracies'])} runs diverged; "
        "each counts as accuracy 0."
        for name, variant in variants.items()
        if variant.get("diverged")
    )


def _count(diverged: int | Sequence[int]) -> int:
    return diverged if isinstance(diverged, int) else len(diverged)


def contrasts_of(comparison: Mapping[str, Any]) -> list[statistics.Contrast]:
    """The derived network against every other variant of a comparison in its plain form."""
    accuracies = {name: variant["test_accuracies"] for name, variant in comparison["variants"].items()}
    derived = accuracies.pop(DERIVED, None)
    return statistics.compare_variants(derived, accuracies) if derived else []


def _comparison_row(label: str, variant: Mapping[str, Any], contrast: statistics.Contrast | None) -> tuple[str, ...]:
    accuracies = variant["test_accuracies"]
    interval = statistics.ci95(accuracies) if accuracies else None
    return (
        label,
        variant_functions(variant),
        f"{100 * statistics.mean(accuracies):.2f} ± {100 * statistics.std(accuracies):.2f}" if accuracies else NOTHING,
        interval_text(interval),
        str(len(accuracies)),
        f"{100 * contrast.difference:+.2f}" if contrast else "",
        p_text(contrast.p_holm) if contrast else "",
        _short_verdict(contrast) if contrast else "",
    )


def interval_text(interval: tuple[float, float] | None) -> str:
    """In percent, cut at 0 and 100: Student's t knows no bounds, accuracies do."""
    if interval is None:
        return NOTHING
    return f"{100 * max(0.0, interval[0]):.2f}–{100 * min(1.0, interval[1]):.2f}"


def _short_verdict(contrast: statistics.Contrast) -> str:
    if contrast.too_few:
        return "too few seeds"
    return contrast.text if contrast.verdict == statistics.UNDECIDED else f"derived {contrast.verdict}"


def _comparison_notes(contrasts: Sequence[statistics.Contrast]) -> tuple[str, ...]:
    undecidable = [contrast for contrast in contrasts if contrast.too_few]
    if not undecidable:
        return ()
    reason = undecidable[0].text.removeprefix("too few seeds to tell (").removesuffix(")")
    many = f"{len(contrasts)} comparisons need" if len(contrasts) > 1 else "the comparison needs"
    needed = statistics.seeds_needed(len(contrasts))
    return (
        f"Too few seeds: {reason}; {many} compare.seeds of {needed} or more before any difference can be significant.",
    )


def p_text(p: float) -> str:
    """A p-value with two figures; never a rounded zero."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def genotype_table(genotype: Mapping[str, Any], title: str = "Genotype") -> Table:
    """Site by site: the chosen functions with their weights, and their learnt parameters."""
    rows = []
    parameterised = any(gene.get("betas") for gene in genotype["sites"].values())
    for site, gene in genotype["sites"].items():
        functions = list(gene["functions"])
        rows_of_weights = weight_rows(gene.get("weights") or [1.0 / len(functions)] * len(functions))
        means = site_means(rows_of_weights)
        order = sorted(range(len(functions)), key=lambda k: -abs(means[k]))
        row = (
            site,
            ", ".join(functions[k] for k in order),
            ", ".join(_weight_text([weights[k] for weights in rows_of_weights]) for k in order),
        )
        rows.append((*row, _betas_text(gene.get("betas") or {})) if parameterised else row)
    columns = (Column(header="site"), Column(header="functions", long="wrap"), Column(header="weights", long="wrap"))
    kind = ", ".join(f"{key} {genotype[key]}" for key in ("level", "normaliser", "top_k") if key in genotype)
    return Table(
        title=f"{title} ({kind})" if kind else title,
        columns=(*columns, Column(header="parameters", long="wrap")) if parameterised else columns,
        rows=tuple(rows),
    )


def _weight_text(values: Sequence[float]) -> str:
    """One weight, or mean ± std over channels or neurons that differ."""
    spread = statistics.std(values)
    return f"{statistics.mean(values):.3f}" + (f" ± {spread:.3f}" if spread > 5e-4 else "")


def _betas_text(betas: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {_weight_text([v for row in weight_rows(value) for v in row])}" for name, value in betas.items()
    )


def trials_table(trials: Sequence[Mapping[str, Any]]) -> Table:
    """One line a trial: state, validation accuracy of the mixture and of the derived network, gap, parameters, time.

    A trial is a mapping with `number`, `status`, `params` and the `metrics` of its result; `value` is its
    derived accuracy where the metrics are not at hand, `reused_from` the trial whose result it shares.
    """
    best = best_number(trials)
    columns = (
        Column(header="trial", right=True, styles={f"* {best}": "bold green"}),
        Column(header="state", styles={"failed": "red", "running": "cyan", "pruned": "dim"}),
        Column(header="derived", right=True),
        Column(header="mixture", right=True),
        Column(header="gap", right=True),
        Column(header="time", right=True),
        Column(header="parameters", long="cut"),
    )
    parameters = parameter_texts([trial.get("params") or {} for trial in trials])
    rows = []
    for trial, text in zip(trials, parameters, strict=True):
        metrics = trial.get("metrics") or {}
        rows.append(
            (
                f"* {trial['number']}" if trial["number"] == best else str(trial["number"]),
                trial["status"] if trial.get("reused_from") is None else f"as {trial['reused_from']}",
                _percent(_derived(trial)),
                _percent(metrics.get("search_val_accuracy")),
                _points(metrics.get("gap")),
                clock(metrics.get("seconds", trial.get("seconds"))),
                str(trial["reason"]) if trial["status"] == "failed" and trial.get("reason") else text,
            )
        )
    note = "gap: mixture minus derived, in points.  *: the best trial."
    collapsed = [f"trial {trial['number']} {trial['collapse']}" for trial in trials if trial.get("collapse")]
    return Table(
        title="Trials (validation accuracy in %)",
        columns=columns,
        rows=tuple(rows),
        notes=(note, *collapsed) if rows else (),
    )


def collapse_text(collapse: Mapping[str, Any]) -> str:
    """`collapsed at epoch 14 (hessian: ...): rolled back to epoch 8`."""
    action = str(collapse["action"])
    followed = f"{action} to epoch {collapse['rolled_back_to']}" if collapse.get("rolled_back_to") else action
    return f"collapsed at epoch {collapse['epoch']} ({collapse['monitor']}: {collapse['reason']}): {followed}"


def _derived(trial: Mapping[str, Any]) -> Any:
    measured = (trial.get("metrics") or {}).get("derived_val_accuracy")
    return trial.get("value") if measured is None else measured


def best_number(trials: Sequence[Mapping[str, Any]]) -> int | None:
    """The number of the best trial (`trial_status.best_trial`), by its derived network's validation accuracy."""
    values = ((trial, _derived(trial)) for trial in trials)
    best = best_trial(
        TrialScore(int(trial["number"]), trial["status"], value) for trial, value in values if is_number(value)
    )
    return None if best is None else best.number


def parameter_texts(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each trial's parameters in short: last part of the name where that is unambiguous, subsets as `{relu, tanh}`."""
    keys = list(dict.fromkeys(key for trial in params for key in trial))
    groups = [key.rpartition(".")[0] for key in keys]
    short = _short_names(keys)
    flags = {
        key: group
        for key, group in zip(keys, groups, strict=True)
        if group and all(isinstance(trial.get(key, True), bool) for trial in params)
    }

    def text(trial: Mapping[str, Any]) -> str:
        parts = [f"{short[key]} {_value(trial[key])}" for key in keys if key in trial and key not in flags]
        for group in dict.fromkeys(flags.values()):
            chosen = [key.rpartition(".")[2] for key in flags if flags[key] == group and trial.get(key)]
            parts.append(f"{group.rpartition('.')[2]} {{{', '.join(chosen)}}}")
        return ", ".join(parts)

    return [text(trial) for trial in params]


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest dotted end of each key that no other key shares."""

    def end(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    def shortest(key: str) -> str:
        lengths = range(1, key.count(".") + 1)
        return next((end(key, n) for n in lengths if [end(k, n) for k in keys].count(end(key, n)) == 1), key)

    return {key: shortest(key) for key in keys}


def clock(seconds: Any) -> str:
    """`0:08`, `3:05`, `2:10:00`."""
    if not is_number(seconds):
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: Any) -> str:
    """`8.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if not is_number(seconds):
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _percent(value: Any) -> str:
    return f"{100 * value:.2f}" if is_number(value) else NOTHING


def _points(value: Any) -> str:
    return f"{100 * value:+.2f}" if is_number(value) else NOTHING


def is_number(value: Any) -> TypeGuard[float]:
    """A finite number and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
