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
@click.option("--fresh", is_flag=True, help="Set an earlier run of this study aside and start anew.")
@options.threads
@options.workers
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
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
    """Search the activations of STUDY, a shipped study's name (nasact list studies) or a YAML file.

    Finds the best trial, derives its network, retrains it and its baselines over several seeds, and says which
    differences are real. Run the same command again to continue after an interruption, or to see the result again.
    """
    loaded = options.loaded_study(study, name)
    options.use_threads(threads)
    from nasact.outer.run import run_study
    from nasact.outer.store import RUNS
    from nasact.report.progress import ProgressView
    from nasact.tracking import MLflowTracker, NullTracker

    home = root / RUNS / loaded.name
    tracker = NullTracker() if no_tracking else MLflowTracker(tracking_uri, directory=home)

    with ProgressView(mode="silent" if quiet else "auto") as view:
        result = run_study(
            loaded,
            root=root,
            data_dir=data_dir,
            download=download,
            tracker=tracker,
            events=view,
            fresh=fresh,
            workers=workers,
        )
    if as_json:
        import json

        click.echo(json.dumps(result.document, indent=2))
    else:
        _print(result, None if no_tracking else tracking_uri, root)


def _print(result: StudyResult, tracking_uri: str | None, root: Path) -> None:
    from nasact.report.terminal import print_result

    print_result(result.document)
    where = [] if root == Path() else ["--dir", str(root)]
    uri = [] if tracking_uri in (None, options.TRACKING_URI) else ["--tracking-uri", str(tracking_uri)]
    name = result.document["study"]["name"]
    click.echo("")
    click.echo("Next:")
    if tracking_uri is not None:
        click.echo(
            f"  {shlex.join(['nasact', 'ui', *uri])}  (the trials, their plots and the registered model in MLflow)"
        )
    command = shlex.join(["nasact", "export", name, "--format", "onnx", "-o", f"{name}.onnx", *where])
    click.echo(f"  {command}  (the network for production)")
    for kind, path in result.document["exports"].items():
        click.echo(f"  {path}  ({kind})")
