"""A checkpoint is written atomically: the previous one is kept until the new one is complete."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nasact.errors import StoreError
from nasact.files import write_json
from nasact.training.checkpoint import Checkpoint


def payload(epoch: int) -> dict[str, object]:
    return {"epoch": epoch, "model": {"w": torch.full((1000,), float(epoch))}, "history": [("a", 1.5, None)]}


def test_a_saved_payload_is_loaded(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "deep" / "checkpoint.pt", "key")
    assert checkpoint.load() is None
    for epoch in range(3):
        checkpoint.save(payload(epoch))
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded["epoch"] == 2
    assert loaded["history"] == [("a", 1.5, None)]
    assert torch.equal(loaded["model"]["w"], torch.full((1000,), 2.0))
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
    checkpoint.remove()
    assert not list((tmp_path / "deep").iterdir())


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(os.urandom(5000))


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped bit", "noise"])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "key")
    checkpoint.save(payload(1))
    checkpoint.save(payload(2))
    damage(checkpoint.path, how)
    with caplog.at_level(logging.WARNING):
        loaded = checkpoint.load()
    assert loaded is not None
    assert loaded["epoch"] == 1
    assert [record.message for record in caplog.records] == [
        f"{checkpoint.path}: the checkpoint is damaged or has another schema: ignored"
    ]
    damage(checkpoint.previous, how)
    assert checkpoint.load() is None


def test_a_checkpoint_with_another_key_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoint(tmp_path / "checkpoint.pt", "one").save(payload(1))
    with caplog.at_level(logging.WARNING):
        assert Checkpoint(tmp_path / "checkpoint.pt", "two").load() is None
    assert "belongs to another spec or to other data" in caplog.text
    assert Checkpoint(tmp_path / "checkpoint.pt", "one").load() is not None


def test_a_full_disk_is_reported_in_one_line_and_the_previous_checkpoint_is_intact(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "key")
    checkpoint.save(payload(1))
    # /dev/full is always full: the kernel raises a real ENOSPC where the new file is written
    (tmp_path / f".checkpoint.pt.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(StoreError) as raised:
        checkpoint.save(payload(2))
    assert str(raised.value) == (
        f"{checkpoint.path}: could not be written: No space left on device; the old content is kept"
    )
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/result\.json: could not be written"):
        write_json(tmp_path / "file" / "result.json", {})


SAVE_FOREVER = """
import sys, torch
from pathlib import Path
from nasact.training.checkpoint import Checkpoint
checkpoint = Checkpoint(Path(sys.argv[1]), "key")
epoch = 0
while True:
    epoch += 1
    checkpoint.save({"epoch": epoch, "w": torch.full((300_000,), float(epoch))})
"""


def test_a_process_killed_while_saving_leaves_an_intact_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(path)])
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.15)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    loaded = Checkpoint(path, "key").load()
    assert loaded is not None
    assert torch.equal(loaded["w"], torch.full((300_000,), float(loaded["epoch"])))
