"""`nasact export`: the best derived network of a study as a file that needs no nasact."""

from __future__ import annotations

from pathlib import Path

import click

from nasact.cli import options


@click.command(short_help="Write the best derived network as a file for production.")
@click.argument("study")
@click.option("--format", "kind", type=click.Choice(["onnx", "pt2", "safetensors"]), default="onnx", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Default: STUDY.FORMAT."
)
@options.data
@options.directory
def export(study: str, kind: str, output: Path | None, data_dir: Path | None, download: bool, root: Path) -> None:
    """Export the retrained derived network of STUDY.

    The file is reloaded in a fresh process that has no nasact; outputs must agree within 1e-4 and the accuracy on the
    test data must be equal, or nothing is written.
    """
    from nasact.outer.export_study import export_study

    done = export_study(root, study, kind, output or Path(f"{study}.{kind}"), data_dir=data_dir, download=download)
    for file in done.files:
        click.echo(f"{file}  ({file.stat().st_size:,} bytes)")
    click.echo(
        f"reloaded without nasact: largest output difference {done.max_difference:.1e}, "
        f"test accuracy {done.accuracy:.4f}, equal"
    )
