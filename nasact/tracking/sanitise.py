"""What a tracking store accepts: names without odd characters, values of bounded length, finite numbers.

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

_CLIMB = re.compile(r"^\.\.+|^\.$")
_ODD = re.compile(r"[^A-Za-z0-9_\-. :/]")


def clean_name(name: object, *, length: int = MAX_NAME) -> str:
    """`name` with what a metric, parameter or file name may hold: `loss(val)` -> `loss_val_`.

    A slash groups metrics in the UI, so it stays, but never as an absolute path or one that climbs (`..`).
    """
    text = _ODD.sub("_", str(name)).strip()[:length]
    parts = [part.strip() for part in text.split("/") if part.strip()]
    return "/".join(_CLIMB.sub(lambda dots: "_" * len(dots[0]), part) for part in parts) or "_"


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Each name with its clean form; two names never share one (`a(b)`, `a[b]` -> `a_b_`, `a_b__2`)."""
    taken: dict[str, str] = {}
    result: dict[str, str] = {}
    for name in names:
        if name in result:
            continue
        base = clean = clean_name(name)
        count = 1
        while clean in taken:
            count += 1
            clean = f"{base[: MAX_NAME - 8]}_{count}"
        taken[clean] = name
        result[name] = clean
    return result


def clean_model_name(name: str) -> str:
    """A name that both a logged and a registered model may have: no `/`, `:`, `.`, `%` or quotes."""
    return re.sub(r"[^A-Za-z0-9_\- ]", "_", name).strip()[:MAX_NAME] or "_"


def cut(text: str, length: int) -> str:
    """`text`, or its beginning and three dots where it is too long."""
    return text if len(text) <= length else text[: length - 3] + "..."


def param_value(value: object) -> str:
    """A parameter as text: strings as they are, everything else as JSON, or `str` where JSON has no word for it."""
    if isinstance(value, str):
        return cut(value, MAX_PARAM)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = str(value)
    return cut(text, MAX_PARAM)


def tag_values(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags as a store accepts them."""
    return {clean_name(name): cut(str(value), MAX_TAG) for name, value in tags.items()}


def numbers(metrics: Mapping[str, SupportsFloat | None]) -> dict[str, float]:
    """The metrics that are numbers, as Python floats (zero-dimensional tensors and numpy scalars too)."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if value is None or isinstance(value, str):
            continue
        try:
            found[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError):
            continue
    return found
