"""The legend of the comparison table: the same text below the table, in the README and in the docs."""

from __future__ import annotations

_LINES = (
    "Every row is one network, retrained from scratch on training + validation data for each seed; test data is used "
    "only here.",
    "'test acc.' is the mean ± standard deviation over the seeds; the 95 % interval (Student's t) is of that mean.",
    "'diff.' is the derived network minus that row, in percentage points, seed by seed: + where derived is ahead.",
    "'Holm p' is the chance of a difference at least this large if the two were equally good: an exact paired "
    "permutation test, corrected for the number of rows.",
    "Only below 0.05 does the verdict name a winner. 'no significant difference': treat the two as equal, whatever the "
    "sign of 'diff.'.",
    "With n seeds no p can fall below 2 / 2^n: 'too few seeds' means that even a real gain could not have shown.",
)

_SHORT = (
    "'diff.' is the derived network minus that row, in points. Only a Holm p below 0.05 (paired permutation test over "
    "the seeds) names a winner; otherwise treat the two as equal."
)


def comparison_legend(*, short: bool = False) -> str:
    """The legend, one statement per line; `short`: two sentences to print below the table."""
    return _SHORT if short else "\n".join(_LINES)
