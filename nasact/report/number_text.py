"""Numbers as the short texts of tables, plots and progress lines. Pure functions; knows no table."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

MISSING = "–"
"""The cell of a value that was not measured."""


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def percent_text(fraction: Any) -> str:
    """A fraction in percent: 0.971 -> `97.10`."""
    return f"{100 * fraction:.2f}" if is_number(fraction) else MISSING


def points_text(difference: Any) -> str:
    """A difference of fractions in percentage points, with its sign: 0.004 -> `+0.40`."""
    return f"{100 * difference:+.2f}" if is_number(difference) else MISSING


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval of accuracies in percent, cut off at 0 and 100: Student's t has no bounds, accuracies do."""
    if interval is None:
        return MISSING
    return f"{100 * max(0.0, interval[0]):.2f}–{100 * min(1.0, interval[1]):.2f}"


def p_text(p: float) -> str:
    """A p-value with two significant figures or three decimals; never rounded to zero."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def value_text(value: Any) -> str:
    """A parameter's value: floats with three significant figures."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def clock_text(seconds: Any) -> str:
    """A duration for a column, in hours, minutes and seconds: `0:08`, `3:05`, `2:10:00`."""
    if not is_number(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration_text(seconds: Any) -> str:
    """A duration for a sentence, with units: `8.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if not is_number(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
