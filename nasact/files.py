"""Files that are replaced as a whole, and JSON with one rule for numbers that JSON does not have.

Knows paths and plain documents, not what is in them.
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
    """Replace `path` by `content` as a whole: a kill at any moment leaves the old content or the new.

    `keep`: where the old content is moved to. Raises StoreError for every failure (a full disk, no permission); the old
    content is then still at `path`.
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
        raise StoreError(f"{path}: could not be written: {error.strerror or error}; what was there is kept") from error


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, as `write_atomically`."""
    write_atomically(path, text.encode())


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace `path` by `document` as indented JSON, as `write_atomically`; nan and infinities become null."""
    write_text(path, json.dumps(json_ready(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; StoreError if the file is missing, unreadable or holds something else."""
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


def json_ready(document: Any) -> Any:
    """`document` in JSON types: None in place of nan and infinities, lists for sequences, text for keys."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        return {str(key): json_ready(value) for key, value in document.items()}
    if isinstance(document, Sequence) and not isinstance(document, str | bytes):
        return [json_ready(value) for value in document]
    return document
