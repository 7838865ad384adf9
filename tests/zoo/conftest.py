"""Settings of the zoo: no test of it may open a connection, nor download anything."""

from __future__ import annotations

import socket
from typing import Any

import pytest

pytest.register_assert_rewrite("conformance", "activation_calls")


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every attempt to connect fail."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise OSError(f"a test of the zoo tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
