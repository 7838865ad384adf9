"""`nasact list`: everything that a study can name. The rows follow from `nasact.kinds`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import click

from nasact.cli import options
from nasact.kinds import KINDS, Kind

Rows = list[dict[str, Any]]


def kind_rows(kind: Kind) -> Rows:
    """One row for each thing of a kind: its name, its options with their defaults, and the columns of the kind."""
    rows = []
    for name, record in kind.records().items():
        defaults = kind.default_options(record)
        row = {"name": name} | ({} if defaults is None else {"options": _options_text(defaults)})
        for header, column in kind.columns.items():
            row[header] = _cell(getattr(record, column) if isinstance(column, str) else column(record))
        rows.append(row)
    return rows


def _options_text(defaults: Mapping[str, Any]) -> str:
    required = inspect.Parameter.empty
    return ", ".join(f"{key} (required)" if value is required else f"{key}={value}" for key, value in defaults.items())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else ", ".join(value)


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
    """The first sentence of the comment at the top of a file."""
    comment = re.match(r"(?:#.*\n)*", yaml)
    text = " ".join((comment[0] if comment else "").replace("#", " ").split())
    return re.split(r"(?<=[.?!:]) (?=[A-Z])", text)[0]


LISTS: dict[str, Callable[[], Rows]] = {
    **{kind.plural: partial(kind_rows, kind) for kind in KINDS.values() if kind.plural},
    "studies": _studies,
}


@click.command("list", short_help="List what a study can name.")
@click.argument("what", type=click.Choice(list(LISTS)))
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def list_group(what: str, as_json: bool) -> None:
    """List the functions, spaces, models, ... that a study can name."""
    rows = LISTS[what]()
    if as_json:
        options.echo_json(rows)
        return
    from nasact.report.terminal import print_rows

    print_rows(what, rows)
