"""JSON and text files of a study's directory. Knows no study: paths and documents only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasact.errors import StoreError


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` as a whole: a kill at any moment leaves the old content or the new."""
    # here, because training needs torch, and who only reads a study must not wait for it
    from nasact.training.files import write_atomically

    write_atomically(path, text.encode())


def write_json(path: Path, document: Any) -> None:
    """Replace `path` by `document` as indented JSON; numbers that JSON does not know (nan, inf) become null."""
    write_text(path, json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; StoreError where it is missing or is something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such file") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise StoreError(f"{path}: is not JSON ({error}); remove it to have it made again") from error
    if not isinstance(document, dict):
        raise StoreError(f"{path}: expected an object, but got a {type(document).__name__}")
    return document


def finite(document: Any) -> Any:
    """`document` with every nan and infinity replaced by None, so that it is JSON for everybody."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        return {str(key): finite(value) for key, value in document.items()}
    if isinstance(document, Sequence) and not isinstance(document, str | bytes):
        return [finite(value) for value in document]
    return document
