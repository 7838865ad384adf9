"""Checkpoints: the state that a run needs to continue bit-identically, in one file that is written atomically.

Knows files and tensors; must not know what the payload means. The caller identifies its run by a `key`.
"""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch

from nasact.files import write_atomically

logger = logging.getLogger(__name__)

SCHEMA = 1
_MAGIC = b"nasact-checkpoint"


class Checkpoint:
    """The checkpoint file of one run. `key` identifies the run: a file with another key is ignored."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self.key = key

    def save(self, payload: dict[str, Any]) -> None:
        """Write `payload` (tensors and plain values); the previous checkpoint is kept until this one is on the disk."""
        write_atomically(self.path, _pack({"key": self.key, "payload": payload}), keep=self.previous)

    def load(self) -> dict[str, Any] | None:
        """The newest payload that is intact and has this key; None if there is none."""
        for path in (self.path, self.previous):
            if path.exists():
                document = _unpack(path)
                if document is None:
                    logger.warning("%s: the checkpoint is damaged or has another schema: ignored", path)
                elif document["key"] != self.key:
                    logger.warning("%s: the checkpoint belongs to another spec or to other data: ignored", path)
                else:
                    payload: dict[str, Any] = document["payload"]
                    return payload
        return None

    def remove(self) -> None:
        """Delete the files: a finished run needs no checkpoint."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def _pack(document: dict[str, Any]) -> bytes:
    # into memory first: torch reports a full disk as a RuntimeError without a path
    buffer = io.BytesIO()
    torch.save(document, buffer)
    body = buffer.getvalue()
    digest = hashlib.sha256(body).hexdigest().encode()
    return b" ".join((_MAGIC, str(SCHEMA).encode(), digest)) + b"\n" + body


def _unpack(path: Path) -> dict[str, Any] | None:
    # the digest is needed because torch does not verify the checksums of its archive
    try:
        header, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if header.split(b" ") != [_MAGIC, str(SCHEMA).encode(), hashlib.sha256(body).hexdigest().encode()]:
        return None
    document: dict[str, Any] = torch.load(io.BytesIO(body), weights_only=True)
    return document
