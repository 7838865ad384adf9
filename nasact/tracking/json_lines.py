"""Files with one JSON object per line, which stay readable when a process is killed while it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in `path`; lines that hold no object are skipped, as a crash may cut a line short."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def append_line(path: Path, record: Mapping[str, Any], *, durable: bool) -> None:
    """Append `record` as one line, on a new line if a crash cut the last one short.

    `durable`: return only when the line is on the disk (fsync).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        last_line_is_cut = False
        if size:
            file.seek(size - 1)
            last_line_is_cut = file.read(1) != b"\n"
        file.write((b"\n" if last_line_is_cut else b"") + json.dumps(record).encode() + b"\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())
