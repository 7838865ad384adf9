"""The table of a study's trials, and the texts of a trial: its parameters, and how its search collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasact.report.number_text import clock_text, is_number, percent_text, points_text, value_text
from nasact.report.table import Column, Table
from nasact.trial_status import TrialScore, best_trial


def trials_table(trials: Sequence[Mapping[str, Any]]) -> Table:
    """One row per trial: status, validation accuracy of the derived network and of the mixture, gap, time, parameters.

    A trial is a mapping with `number`, `status` and `params`. Optional: `metrics`, of its result; `value`, the accuracy
    of its derived network, used if `metrics` lacks it; `reason`; `collapse`, a text; `reused_from`, the number of the
    trial whose result it shares.
    """
    best = best_trial_number(trials)
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
                percent_text(_derived_accuracy(trial)),
                percent_text(metrics.get("search_val_accuracy")),
                points_text(metrics.get("gap")),
                clock_text(metrics.get("seconds")),
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
    result = f"{action} to epoch {collapse['rolled_back_to']}" if collapse.get("rolled_back_to") else action
    return f"collapsed at epoch {collapse['epoch']} ({collapse['monitor']}: {collapse['reason']}): {result}"


def _derived_accuracy(trial: Mapping[str, Any]) -> Any:
    measured = (trial.get("metrics") or {}).get("derived_val_accuracy")
    return trial.get("value") if measured is None else measured


def best_trial_number(trials: Sequence[Mapping[str, Any]]) -> int | None:
    """Number of the best trial (`trial_status.best_trial`) by validation accuracy of its derived network, or None."""
    accuracies = ((trial, _derived_accuracy(trial)) for trial in trials)
    best = best_trial(
        TrialScore(int(trial["number"]), trial["status"], accuracy)
        for trial, accuracy in accuracies
        if is_number(accuracy)
    )
    return None if best is None else best.number


def parameter_texts(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """The parameters of each trial in short: the end of a name where unambiguous, subsets as `{relu, tanh}`."""
    keys = list(dict.fromkeys(key for trial in params for key in trial))
    groups = [key.rpartition(".")[0] for key in keys]
    short_names = _short_names(keys)
    flags = {
        key: group
        for key, group in zip(keys, groups, strict=True)
        if group and all(isinstance(trial.get(key, True), bool) for trial in params)
    }

    def text(trial: Mapping[str, Any]) -> str:
        parts = [f"{short_names[key]} {value_text(trial[key])}" for key in keys if key in trial and key not in flags]
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
