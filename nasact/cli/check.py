"""`nasact check`: validate a study and estimate its cost without running it."""

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
    """Validate STUDY, list its sites and what is left alone, run one batch and estimate memory and time."""
    loaded = options.load_study(study, None)
    options.configure_threads(threads)
    from nasact.outer.preview import preview

    document = preview(loaded, data_dir=data_dir, download=download).to_dict()
    if as_json:
        options.echo_json(document)
    else:
        from nasact.report.terminal import print_preview

        data_arguments = [] if data_dir is None else ["--data-dir", str(data_dir)]
        print_preview(document, shlex.join(["nasact", "search", study, *data_arguments]))
