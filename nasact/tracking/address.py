"""The address of a tracking store: an SQLite file, another database or a server. Opens no file and no connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nasact.errors import StoreError, did_you_mean

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Address:
    """A tracking address, made absolute. `path`: the file of an SQLite database, None for every other store."""

    uri: str
    path: Path | None = None

    @property
    def is_server(self) -> bool:
        return self.uri.split(":", 1)[0] in SERVERS

    @property
    def artifacts(self) -> Path | None:
        """Folder of an SQLite store's artifacts: next to the file, whatever the current directory; None: no SQLite."""
        return None if self.path is None else self.path.parent / "mlartifacts"


def parse_address(uri: str) -> Address:
    """Parse `uri` as passed to --tracking-uri; StoreError if it is no address of an SQLite file, database or server."""
    scheme, separator, rest = uri.partition("://")
    if scheme == "sqlite" and separator:
        name = rest.removeprefix("/").split("?", 1)[0]
        if not rest.startswith("/") or name in ("", ":memory:"):
            raise StoreError(f"--tracking-uri: expected sqlite:///FILE, but got {uri!r}")
        path = Path(name).expanduser().resolve()
        return Address(f"sqlite:///{path}", path)
    if separator and rest and scheme.split("+", 1)[0] in (*SERVERS, *DATABASES):
        return Address(uri.rstrip("/"))
    known = ("sqlite", *SERVERS, *DATABASES)
    hint = did_you_mean(scheme, known) if separator else f" Did you mean {'sqlite:///' + uri!r}?"
    raise StoreError(f"--tracking-uri: expected sqlite:///FILE or http(s)://HOST:PORT, but got {uri!r}.{hint}")
