"""The data of a study, loaded as its `task` section specifies."""

from __future__ import annotations

from pathlib import Path

from nasact.study import TrialSpec
from nasact.tasks import Data, load_data


def load_study_data(spec: TrialSpec, *, data_dir: Path | None = None, download: bool = False) -> Data:
    """Training and validation data in memory; the test set is not opened. `data_dir`: where data sets are stored."""
    task = spec.task
    return load_data(
        task.dataset.name,
        task.dataset.options,
        validation=task.validation,
        seed=spec.seed,
        data_dir=data_dir,
        download=download,
        train_limit=task.train_limit,
        test_limit=task.test_limit,
    )
