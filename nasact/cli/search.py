"""`nasact search`: run a study from search to comparison, or continue it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasact.cli import options

if TYPE_CHECKING:
    from nasact.outer.run import StudyResult


@click.command(short_help="Run a study from search to comparison, or continue it.")
@click.argument("study")
@options.data
@options.name
@options.directory
@options.tracking_uri
@click.option("--no-tracking", is_flag=True, help="Do not write to MLflow.")
@click.option("--fresh", is_flag=True, help="Rename the directory of an earlier run and start from scratch.")
@options.threads
@options.workers
@click.option("--quiet", is_flag=True, help="Print only the result, no progress.")
@options.as_json
def search(
    study: str,
    data_dir: Path | None,
    download: bool,
    name: str | None,
    root: Path,
    tracking_uri: str,
    no_tracking: bool,
    fresh: bool,
    threads: int,
    workers: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Search the activations of STUDY, the name of a shipped study (nasact list studies) or a YAML file.

    Finds the best trial, derives its network, retrains it and its baselines over several seeds, and reports which
    differences are significant. Run the same command again to continue after an interruption, or to print the result.
    """
    loaded = options.load_study(study, name)
    options.configure_threads(threads)
    from nasact.outer.run import run_study
    from nasact.outer.store import RUNS
    from nasact.report.progress import ProgressView
    from nasact.tracking import MLflowTracker, NullTracker

    study_directory = root / RUNS / loaded.name
    tracker = NullTracker() if no_tracking else MLflowTracker(tracking_uri, directory=study_directory)

    with ProgressView(mode="silent" if quiet else "auto") as view:
        result = run_study(
            loaded,
            root=root,
            data_dir=data_dir,
            download=download,
            tracker=tracker,
            callbacks=view,
            fresh=fresh,
            workers=workers,
        )
    if as_json:
        options.echo_json(result.document)
    else:
        _print_result(result, None if no_tracking else tracking_uri, root)


def _print_result(result: StudyResult, tracking_uri: str | None, root: Path) -> None:
    from nasact.report.terminal import print_result

    print_result(result.document)
    uri = [] if tracking_uri in (None, options.TRACKING_URI) else ["--tracking-uri", str(tracking_uri)]
    name = result.document["study"]["name"]
    click.echo("")
    click.echo("Next:")
    if tracking_uri is not None:
        click.echo(
            f"  {shlex.join(['nasact', 'ui', *uri])}  (the trials, their plots and the registered model in MLflow)"
        )
    export = ["nasact", "export", name, "--format", "onnx", "-o", f"{name}.onnx", *options.directory_arguments(root)]
    click.echo(f"  {shlex.join(export)}  (the network for production)")
    for format_name, path in result.document["exports"].items():
        click.echo(f"  {path}  ({format_name})")
