"""`nasact show`: the state and the result of a study that has been run here."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from nasact.cli import options


@click.command(short_help="Show the state and the result of a study.")
@click.argument("study")
@options.directory
@options.as_json
@click.option("--genotype", is_flag=True, help="Only the genotype, as JSON.")
def show(study: str, root: Path, as_json: bool, genotype: bool) -> None:
    """Show the trials, the genotype and the comparison of STUDY, finished or not."""
    import json

    from nasact.outer.study_view import load_study_view

    state = load_study_view(root, study)
    document = state.to_document()
    if genotype:
        if document["genotype"] is None:
            raise click.ClickException(f"study {study!r} has no genotype yet")
        click.echo(json.dumps(document["genotype"], indent=2))
    elif as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        from nasact.report.terminal import print_result

        print_result(document)
        if not document["variants"]:
            where = [] if root == Path() else ["--dir", str(root)]
            command = shlex.join(["nasact", "search", str(state.directory / "study.yaml"), *where])
            click.echo(f"\nNot finished. To continue (with the options it was started with):\n  {command}")
