"""Atomic writes of files, and JSON with one rule for nan and infinities.

Knows paths and plain documents; must not know what the documents mean.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasact.errors import StoreError


def write_atomically(path: Path, content: bytes, *, keep: Path | None = None) -> None:
    """Replace the content of `path` atomically: after a kill at any moment the file holds the old content or the new.

    `keep`: the path that the old content is moved to. Raises StoreError for every failure (a full disk, no permission);
    the old content is then still at `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"{path}: could not be written: {error.strerror or error}; the old content is kept") from error


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` in UTF-8, atomically."""
    write_atomically(path, text.encode())


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the content of `path` by `document` as indented JSON, atomically; nan and infinities become null."""
    write_text(path, json.dumps(json_ready(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; raises StoreError if the file is missing, unreadable or holds anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path}: file not found") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise StoreError(f"{path}: is not JSON ({error}); delete it, then rerun to write it again") from error
    if not isinstance(document, dict):
        raise StoreError(f"{path}: expected a JSON object, but got a {type(document).__name__}")
    return document


def json_ready(document: Any) -> Any:
    """`document` in JSON types: nan and infinities become None, sequences become lists, keys become text."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        return {str(key): json_ready(value) for key, value in document.items()}
    if isinstance(document, Sequence) and not isinstance(document, str | bytes):
        return [json_ready(value) for value in document]
    return document
