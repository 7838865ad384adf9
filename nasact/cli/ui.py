"""`nasact ui`: MLflow's pages over the tracking database."""

from __future__ import annotations

import os

import click

from nasact.cli import options


@click.command()
@options.tracking_uri
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(tracking_uri: str, host: str, port: int) -> None:
    """Open the MLflow UI on what was tracked (Ctrl-C ends it)."""
    from nasact.tracking import ui_command, ui_environment

    command = ui_command(tracking_uri, host=host, port=port)
    click.echo(f"MLflow on http://{host}:{port}  (Ctrl-C ends it)", err=True)
    os.execve(command[0], command, ui_environment())  # the server takes this process's place, and its Ctrl-C
