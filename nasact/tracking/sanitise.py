"""Values in the form that a tracking store accepts: restricted names, texts of bounded length, numbers as floats.

Pure functions on strings and numbers; knows no store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import SupportsFloat

MAX_NAME = 250
MAX_PARAM = 6000
MAX_TAG = 5000
"""Characters that MLflow accepts in a name, in a parameter's value and in a tag's value."""

_DOTS = re.compile(r"^\.\.+|^\.$")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_\-. :/]")


def clean_name(name: object, *, length: int = MAX_NAME) -> str:
    """`name` with only the characters of a metric, parameter or file name: `loss(val)` -> `loss_val_`.

    Slashes stay, because the UI groups metrics by them. The result is never an absolute path and has no part `..`.
    """
    text = _FORBIDDEN.sub("_", str(name)).strip()[:length]
    parts = [part.strip() for part in text.split("/") if part.strip()]
    return "/".join(_DOTS.sub(lambda dots: "_" * len(dots[0]), part) for part in parts) or "_"


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Each name with its clean form; no two share one: `a(b)`, `a[b]` -> `a_b_`, `a_b__2`."""
    taken: set[str] = set()
    result: dict[str, str] = {}
    for name in names:
        if name in result:
            continue
        base = clean = clean_name(name)
        count = 1
        while clean in taken:
            count += 1
            clean = f"{base[: MAX_NAME - 8]}_{count}"
        taken.add(clean)
        result[name] = clean
    return result


def clean_model_name(name: str) -> str:
    """`name` with only the characters of a logged and of a registered model: no `/`, `:`, `.`, `%` or quotes."""
    return re.sub(r"[^A-Za-z0-9_\- ]", "_", name).strip()[:MAX_NAME] or "_"


def truncate(text: str, length: int) -> str:
    """`text`, or its first `length - 3` characters and three dots; unlike `errors.one_line`, line breaks stay."""
    return text if len(text) <= length else text[: length - 3] + "..."


def param_value(value: object) -> str:
    """A parameter as text: a string unchanged, anything else as JSON, or by `str` if JSON has no form for it."""
    if isinstance(value, str):
        return truncate(value, MAX_PARAM)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = str(value)
    return truncate(text, MAX_PARAM)


def tag_values(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags with clean names and truncated values."""
    return {clean_name(name): truncate(str(value), MAX_TAG) for name, value in tags.items()}


def to_floats(metrics: Mapping[str, SupportsFloat | None]) -> dict[str, float]:
    """The metrics that are numbers, as Python floats (zero-dimensional tensors and numpy scalars too)."""
    floats: dict[str, float] = {}
    for name, value in metrics.items():
        if value is None or isinstance(value, str):
            continue
        try:
            floats[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError):
            continue
    return floats
