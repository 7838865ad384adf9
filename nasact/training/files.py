"""Files that are either the old ones or the new ones, never half of both. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasact.errors import StoreError


def write_atomically(path: Path, content: bytes, *, keep: Path | None = None) -> None:
    """Replace `path` by `content` as a whole, and move what was there to `keep` where that is given.

    Whatever fails (a full disk, no permission) is a StoreError of one line, and what was at `path` is still there.
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


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """`document` as readable JSON, atomically."""
    write_atomically(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
