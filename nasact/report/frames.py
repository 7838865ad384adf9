"""The result document as pandas data frames, for notebooks and further plots. pandas is imported on the first call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


def trials_frame(document: Mapping[str, Any]) -> pandas.DataFrame:
    """One row per trial, by number. Columns: status, value, parameters by dotted path, metrics by name, reason."""
    import pandas as pd

    rows = [
        {
            "number": trial["number"],
            "status": trial["status"],
            "value": trial["value"],
            **trial["params"],
            **trial["metrics"],
            "reason": trial["reason"],
        }
        for trial in document["trials"]["records"]
    ]
    return pd.DataFrame(rows).set_index("number") if rows else pd.DataFrame()


def comparison_frame(document: Mapping[str, Any]) -> pandas.DataFrame:
    """One row per network of the comparison: variant, seed, test accuracy (a fraction). Rows of one seed are paired."""
    import pandas as pd

    rows = [
        {"variant": name, "seed": seed, "test_accuracy": accuracy}
        for name, variant in document["variants"].items()
        for seed, accuracy in enumerate(variant["test_accuracies"])
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "test_accuracy"])
