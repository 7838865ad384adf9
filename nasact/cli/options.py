"""Options that several commands share, and what commands do with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

TRACKING_URI = "sqlite:///mlflow.db"


def directory(function: F) -> F:
    """`--dir`: directory of the studies; passed as `root`."""
    return click.option(
        "--dir",
        "root",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(),
        show_default="this directory",
        help="Keep studies in DIR/runs.",
    )(function)


def directory_arguments(root: Path) -> list[str]:
    """The arguments that give `root` to a command with `--dir`."""
    return [] if root == Path() else ["--dir", str(root)]


def tracking_uri(function: F) -> F:
    return click.option(
        "--tracking-uri",
        default=TRACKING_URI,
        show_default=True,
        help="MLflow store: sqlite:///FILE or the address of an MLflow server.",
    )(function)


def data(function: F) -> F:
    """`--data-dir` and `--download`."""
    function = click.option(
        "--download", is_flag=True, help="Download a torchvision data set that is not in --data-dir."
    )(function)
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="Directory of the data sets, in torchvision's layout.",
    )(function)


def threads(function: F) -> F:
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Number of torch's threads. Results are bit-identical only for the same number.",
    )(function)


def _processors() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(function: F) -> F:
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=lambda: min(_processors(), 8),
        show_default="one per processor, at most 8",
        help="Processes that train the networks of the comparison. Results do not depend on it.",
    )(function)


def name(function: F) -> F:
    return click.option("--name", default=None, help="Run the study under another name.")(function)


def as_json(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, and nothing else.")(
        function
    )


def echo_json(document: object) -> None:
    """Print `document` on stdout as indented JSON."""
    import json

    click.echo(json.dumps(document, indent=2))


def configure_threads(count: int) -> None:
    """Set the number of torch's threads in this process."""
    from nasact.training.process import configure_process

    configure_process(count)


def load_study(name_or_path: str, new_name: str | None) -> Any:
    """Load a study by its name or path; `new_name`: replaces its name (None: keep it)."""
    from nasact.study import Study

    study = Study.load(name_or_path)
    if new_name is None:
        return study
    return Study.from_tree({**study.tree, "name": new_name})
