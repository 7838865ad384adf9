"""The result document of a study, as `nasact search --json` prints it: a pure function of plain mappings.

docs/result-schema.md describes every field. A change that removes or redefines a field increments `SCHEMA`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nasact.files import json_ready
from nasact.report import statistics
from nasact.report.comparison import DERIVED, derived_contrasts, variant_functions
from nasact.report.genotype_text import site_text
from nasact.report.trials_table import best_trial_number
from nasact.trial_status import STATUSES

SCHEMA = 2
"""Schema 1 held nine fixed `metrics` per trial; schema 2 holds every metric that a trial of the study measured."""

FIXED_METRICS = ("search_val_accuracy", "derived_val_accuracy", "gap", "entropy", "seconds")
"""The `metrics` of every trial of every study; null if the trial ended before it measured one."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What produced the result, and what a reader needs to run the study again."""

    seed: int
    versions: Mapping[str, str] = field(default_factory=dict)
    git: str | None = None
    command: str | None = None
    platform: str | None = None
    cpus: int | None = None
    threads: int | None = None
    seconds: float | None = None


def result_document(
    *,
    study: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    provenance: Provenance,
    genotype: Mapping[str, Any] | None = None,
    comparison: Mapping[str, Any] | None = None,
    exports: Mapping[str, str] | None = None,
    mlflow: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document of a study, in JSON types only; a field that was not computed is null or empty, never missing.

    `study`: `name`, `fingerprint`, `directory` and `tree`. `trials`: records as for `trials_table`, and `left_out`.
    `genotype`, `comparison`: their plain forms. `exports`: path by format. `mlflow`: `tracking_uri`, and the run ids
    `study` and `trials`.
    """
    best = next((trial for trial in trials if trial["number"] == best_trial_number(trials)), None)
    metrics = (best or {}).get("metrics") or {}
    metric_names = _metric_names(trials)
    variants = {name: _variant(variant) for name, variant in (comparison or {}).get("variants", {}).items()}
    runs = mlflow or {}
    document = {
        "schema": SCHEMA,
        "study": {key: study.get(key) for key in ("name", "fingerprint", "directory", "tree")},
        "genotype": None if genotype is None else _genotype(genotype),
        "accuracy": {
            "test": variants.get(DERIVED, {}).get("test"),
            "validation_derived": metrics.get("derived_val_accuracy", (best or {}).get("value")),
            "validation_mixture": metrics.get("search_val_accuracy"),
        },
        "gap": metrics.get("gap"),
        "variants": variants,
        "best_single": (comparison or {}).get("best_single") or None,
        "contrasts": [contrast.to_dict() for contrast in derived_contrasts(comparison)] if comparison else [],
        "exports": dict(exports or {}),
        "mlflow": {
            "tracking_uri": runs.get("tracking_uri"),
            "study_run": runs.get("study"),
            "trial_runs": {str(number): run for number, run in (runs.get("trials") or {}).items()},
        },
        "trials": {
            "best": best["number"] if best else None,
            "counts": _counts(trials),
            "records": [_trial(trial, metric_names) for trial in trials],
        },
        "provenance": asdict(provenance),
    }
    plain: dict[str, Any] = json_ready(document)
    return plain


def _genotype(genotype: Mapping[str, Any]) -> dict[str, Any]:
    sites = {
        site: {
            "text": site_text(gene),
            "functions": list(gene["functions"]),
            "weights": gene.get("weights"),
            "betas": dict(gene.get("betas") or {}),
        }
        for site, gene in genotype["sites"].items()
    }
    return {**{key: genotype.get(key) for key in ("level", "normaliser", "top_k")}, "sites": sites}


def _variant(variant: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "label": variant.get("label"),
        "functions": variant_functions(variant),
        "test": _accuracy_summary(variant["test_accuracies"]),
        "test_accuracies": list(variant["test_accuracies"]),
        "val_accuracy": variant.get("val_accuracy"),
        "diverged": len(variant.get("diverged") or ()),
        "parameters": variant.get("parameters"),
    }


def _accuracy_summary(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean, standard deviation, 95 % interval and number of `values`; None if there are none."""
    if not values:
        return None
    interval = statistics.ci95(values)
    return {
        "mean": statistics.mean(values),
        "std": statistics.std(values),
        "ci95": None if interval is None else list(interval),
        "n": len(values),
    }


def _counts(trials: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    by_status = Counter(trial["status"] for trial in trials)
    reused = sum(trial.get("reused_from") is not None for trial in trials)
    return {**{status: by_status[status] for status in STATUSES}, "reused": reused}


def _metric_names(trials: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The fixed metrics, then all others that any of the trials measured, sorted by name."""
    measured = {name for trial in trials for name in trial.get("metrics") or {}}
    return (*FIXED_METRICS, *sorted(measured - set(FIXED_METRICS)))


def _trial(trial: Mapping[str, Any], metric_names: Sequence[str]) -> dict[str, Any]:
    metrics = trial.get("metrics") or {}
    return {
        "number": trial["number"],
        "status": trial["status"],
        "params": dict(trial.get("params") or {}),
        "value": metrics.get("derived_val_accuracy", trial.get("value")),
        "metrics": {name: metrics.get(name) for name in metric_names},
        "reason": trial.get("reason"),
        "collapse": trial.get("collapse"),
        "left_out": list(trial.get("left_out") or ()),
        "reused_from": trial.get("reused_from"),
    }
