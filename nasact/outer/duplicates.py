"""Configurations that a study draws more than once. A duplicate of a complete trial is not trained again."""

from __future__ import annotations

from collections.abc import Iterable

from nasact.outer.records import TrialRecord


def find_duplicate(records: Iterable[TrialRecord], key: str) -> int | None:
    """The number of the first complete trial whose configuration has this key (`TrialSpec.key`); None without one.

    Pruned and failed trials do not count: their configuration has no result that could be reused.
    """
    return next((record.number for record in records if record.status == "complete" and record.key == key), None)
