"""`nasact list`: everything that a study can name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import click

Rows = list[dict[str, Any]]


def _functions() -> Rows:
    from nasact import activations

    return [
        {
            "name": candidate.name,
            "formula": candidate.formula,
            "range": "[" + ", ".join(f"{end:.3g}" for end in candidate.range) + "]",
            "monotone": "yes" if candidate.monotone else "no",
            "parameters": ", ".join(beta.name for beta in candidate.betas),
            "aliases": ", ".join(candidate.aliases),
            "source": candidate.source,
        }
        for candidate in activations.candidates()
    ]


def _spaces() -> Rows:
    from nasact import activations

    return [
        {"name": space.name, "functions": ", ".join(space.functions), "source": space.source}
        for space in activations.spaces()
    ]


def _models() -> Rows:
    from nasact.tasks import MODELS

    return [
        {"name": name, "description": record.description, "options": _options(record.options), "source": record.source}
        for name, record in MODELS.items()
    ]


def _datasets() -> Rows:
    from nasact.tasks import DATASETS

    return [
        {"name": name, "description": record.description, "options": _options(record.options), "source": record.source}
        for name, record in DATASETS.items()
    ]


def _defaults(record: Any) -> dict[str, Any]:
    """The options of a record's class, each with its default."""
    from dataclasses import fields

    return {field.name: field.default for field in fields(record)}


def _options(defaults: Any) -> str:
    required = inspect.Parameter.empty
    return ", ".join(
        f"{key} (required)" if value is required else f"{key}={value}" for key, value in dict(defaults).items()
    )


def _strategies() -> Rows:
    from nasact.bilevel import STRATEGIES

    return [
        {
            "name": name,
            "options": _options(_defaults(strategy)),
            "guarantee": strategy.guarantee,
            "cost": strategy.cost,
            "source": strategy.source,
        }
        for name, strategy in STRATEGIES.items()
    ]


def _derivations() -> Rows:
    from nasact.derivation import DERIVATIONS

    return [
        {
            "name": name,
            "options": _options(_defaults(method)),
            "summary": method.summary,
            "cost": method.cost,
            "levels": ", ".join(method.levels) or "all",
            "source": method.source,
        }
        for name, method in DERIVATIONS.items()
    ]


def _regularisers() -> Rows:
    from nasact.bilevel import REGULARISERS

    return [
        {
            "name": name,
            "options": _options(_defaults(regulariser)),
            "formula": regulariser.formula,
            "loss": regulariser.on,
            "source": regulariser.source,
        }
        for name, regulariser in REGULARISERS.items()
    ]


def _monitors() -> Rows:
    from nasact.monitors import MONITORS

    return [
        {
            "name": name,
            "options": _options(_defaults(monitor)),
            "metrics": ", ".join(f"{metric} ({side} is better)" for metric, side in monitor.metrics.items()),
            "summary": monitor.summary,
            "cost": monitor.cost,
            "source": monitor.source,
        }
        for name, monitor in MONITORS.items()
    ]


def _kernels() -> Rows:
    from nasact.mixture import KERNELS

    return [
        {
            "name": name,
            "options": _options(_defaults(kernel)),
            "summary": kernel.summary,
        }
        for name, kernel in KERNELS.items()
    ]


def _normalisers() -> Rows:
    from nasact.mixture import NORMALISERS

    return [
        {"name": name, "weights": record.formula, "signed": "yes" if record.signed else "no", "source": record.source}
        for name, record in NORMALISERS.items()
    ]


def _studies() -> Rows:
    from nasact.resources import shipped, shipped_names
    from nasact.study import Study

    rows = []
    for name in shipped_names("studies"):
        spec = Study.load(name).spec
        rows.append(
            {
                "name": name,
                "description": _first_sentence((shipped("studies") / f"{name}.yaml").read_text()),
                "dataset": spec.task.dataset.name,
                "model": spec.task.model.name,
                "strategy": spec.search.strategy.name,
            }
        )
    return rows


def _first_sentence(yaml: str) -> str:
    """Of the comment that a file begins with."""
    comment = re.match(r"(?:#.*\n)*", yaml)
    text = " ".join((comment[0] if comment else "").replace("#", " ").split())
    return re.split(r"(?<=[.?!:]) (?=[A-Z])", text)[0]


LISTS: dict[str, Callable[[], Rows]] = {
    "functions": _functions,
    "spaces": _spaces,
    "models": _models,
    "datasets": _datasets,
    "strategies": _strategies,
    "derivations": _derivations,
    "regularisers": _regularisers,
    "monitors": _monitors,
    "normalisers": _normalisers,
    "kernels": _kernels,
    "studies": _studies,
}


@click.command("list", short_help="List what a study can name.")
@click.argument("what", type=click.Choice(list(LISTS)))
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_group(what: str, as_json: bool) -> None:
    """List the functions, spaces, models, ... that a study can name."""
    rows = LISTS[what]()
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
        return
    from nasact.report.terminal import print_rows

    print_rows(what, rows)
