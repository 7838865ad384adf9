"""`nasact check`: what a study would do, found out before it does it."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from nasact.cli import options


@click.command(short_help="Validate a study, run one batch, estimate memory and time.")
@click.argument("study")
@options.data
@options.threads
@options.as_json
def check(study: str, data_dir: Path | None, download: bool, threads: int, as_json: bool) -> None:
    """Validate STUDY, list its sites, run one batch and estimate memory and time."""
    loaded = options.loaded_study(study, None)
    options.use_threads(threads)
    import json

    from nasact.outer.preview import preview

    seen = preview(loaded, data_dir=data_dir, download=download)
    if as_json:
        click.echo(json.dumps(seen.to_dict(), indent=2))
    else:
        from nasact.report.terminal import print_preview

        given = [] if data_dir is None else ["--data-dir", str(data_dir)]
        print_preview(seen.to_dict(), shlex.join(["nasact", "search", study, *given]))
