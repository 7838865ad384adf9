"""Export of a study's derived network: `model.pt` -> a file for production, compared on the study's test data."""

from __future__ import annotations

from pathlib import Path

from nasact.export import ExportResult, export_network
from nasact.outer.data import load_study_data
from nasact.outer.store import StudyDirectory
from nasact.outer.trained_network import load_network


def export_study(
    root: Path, name: str, kind: str, path: Path, *, data_dir: Path | None = None, download: bool = False
) -> ExportResult:
    """Export the derived network of study `name`, as retrained with the first seed, to `path` with `export_network`."""
    network = load_network(StudyDirectory.existing(root, name))
    test = load_study_data(network.spec, data_dir=data_dir, download=download).test.open()
    return export_network(network.module, test.x, path, kind, labels=test.y)
