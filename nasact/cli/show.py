"""`nasact show`: print the state and the result of a study that was run in this directory."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from nasact.cli import options


@click.command(short_help="Show the state and the result of a study.")
@click.argument("study")
@options.directory
@options.as_json
@click.option("--genotype", is_flag=True, help="Print only the genotype, as JSON.")
def show(study: str, root: Path, as_json: bool, genotype: bool) -> None:
    """Show the trials, the genotype and the comparison of STUDY, finished or not."""
    from nasact.outer.study_view import load_study_view

    view = load_study_view(root, study)
    document = view.to_document()
    if genotype:
        if document["genotype"] is None:
            raise click.ClickException(f"study {study!r} has no genotype yet")
        options.echo_json(document["genotype"])
    elif as_json:
        options.echo_json(document)
    else:
        from nasact.report.terminal import print_result

        print_result(document)
        if not document["variants"]:
            study_file = str(view.directory / "study.yaml")
            command = shlex.join(["nasact", "search", study_file, *options.directory_arguments(root)])
            click.echo(f"\nNot finished. To continue (with the options it was started with):\n  {command}")
