"""`nasact ui`: serve MLflow's web pages for the tracking database."""

from __future__ import annotations

import os

import click

from nasact.cli import options


@click.command(short_help="Serve MLflow's web pages of the tracked studies.")
@options.tracking_uri
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve the pages on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to serve them on.")
def ui(tracking_uri: str, host: str, port: int) -> None:
    """Serve MLflow's web pages of the tracked studies until Ctrl-C."""
    from nasact.tracking import ui_command, ui_environment

    command = ui_command(tracking_uri, host=host, port=port)
    click.echo(f"MLflow on http://{host}:{port}  (Ctrl-C ends it)", err=True)
    os.execve(command[0], command, ui_environment())  # the server replaces this process, so that it receives Ctrl-C
