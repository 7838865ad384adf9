"""Checkpoints: everything a run needs to continue as if nothing had happened, in one file that is whole or not there.

Knows files and tensors; what the payload means is the caller's business, who names it by a `key`.
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
    """The checkpoint file of one run. `key` says whose it is: one with another key is left aside."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self.key = key

    def save(self, payload: dict[str, Any]) -> None:
        """Write `payload` (tensors and plain values); the former checkpoint stays until this one is on the disk."""
        write_atomically(self.path, _pack({"key": self.key, "payload": payload}), keep=self.previous)

    def load(self) -> dict[str, Any] | None:
        """The newest payload that is whole and carries this key; None where there is none."""
        for path in (self.path, self.previous):
            if path.exists():
                document = _unpack(path)
                if document is None:
                    logger.warning("%s: the checkpoint is torn or of another schema: ignored", path)
                elif document["key"] != self.key:
                    logger.warning("%s: the checkpoint belongs to another spec or other data: ignored", path)
                else:
                    payload: dict[str, Any] = document["payload"]
                    return payload
        return None

    def remove(self) -> None:
        """Delete the files; the run is over."""
        self.path.unlink(missing_ok=True)
        self.previous.unlink(missing_ok=True)


def _pack(document: dict[str, Any]) -> bytes:
    # into memory first: torch turns a full disk into a RuntimeError without a path
    buffer = io.BytesIO()
    torch.save(document, buffer)
    body = buffer.getvalue()
    digest = hashlib.sha256(body).hexdigest().encode()
    return b" ".join((_MAGIC, str(SCHEMA).encode(), digest)) + b"\n" + body


def _unpack(path: Path) -> dict[str, Any] | None:
    # the digest catches what torch's reader would not: it does not verify the checksums of its archive
    try:
        header, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if header.split(b" ") != [_MAGIC, str(SCHEMA).encode(), hashlib.sha256(body).hexdigest().encode()]:
        return None
    document: dict[str, Any] = torch.load(io.BytesIO(body), weights_only=True)
    return document
