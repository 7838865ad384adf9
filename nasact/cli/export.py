"""`nasact export`: write the best derived network of a study as a file that needs no nasact."""

from __future__ import annotations

from pathlib import Path

import click

from nasact.cli import options


@click.command(short_help="Write the best derived network as a file for production.")
@click.argument("study")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["onnx", "pt2", "safetensors"]),
    default="onnx",
    show_default=True,
    help="Format of the file; safetensors writes its plain torch code next to it.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="File to write. Default: STUDY.FORMAT.",
)
@options.data
@options.directory
def export(
    study: str, format_name: str, output: Path | None, data_dir: Path | None, download: bool, root: Path
) -> None:
    """Export the retrained derived network of STUDY.

    The file is reloaded in a new process without nasact. Outputs must agree within 1e-4 and the accuracy on the test
    data must be equal; otherwise nothing is written.
    """
    from nasact.outer.export_study import export_study

    path = output or Path(f"{study}.{format_name}")
    result = export_study(root, study, format_name, path, data_dir=data_dir, download=download)
    for file in result.files:
        click.echo(f"{file}  ({file.stat().st_size:,} bytes)")
    click.echo(
        f"reloaded without nasact: largest output difference {result.max_difference:.1e}, "
        f"test accuracy {result.accuracy:.4f}, equal"
    )
