"""One registry class for everything that is chosen by name: functions, strategies, models, datasets, ...

A registered record is listed by the CLI, accepted by studies and tested. Must not know what the records are.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from nasact.errors import NasactError, UnknownName, did_you_mean

T = TypeVar("T")


def import_submodules(package: str, path: Iterable[str], *, first: Iterable[str] = ()) -> None:
    """Import every module of `package`: a new file that registers its record needs no line elsewhere.

    The order is that of `first`, then alphabetical. A package calls `import_submodules(__name__, __path__)`.
    """
    for name in (*first, *sorted(module.name for module in pkgutil.iter_modules(path))):
        importlib.import_module(f"{package}.{name}")


class Registry(Generic[T]):
    """A mapping of names to records, in the order of registration."""

    def __init__(self, kind: str, listing: str = "") -> None:
        """`kind`: the noun in error messages. `listing`: the command that lists the names."""
        self.kind = kind
        self.listing = listing
        self._records: dict[str, T] = {}

    def register(self, name: str, record: T, *, replace: bool = False) -> T:
        """Register `record` as `name` and return it; NasactError if the name is taken, unless `replace`."""
        if name in self._records and not replace:
            raise NasactError(f"{self.kind} {name!r} is already registered")
        self._records[name] = record
        return record

    def get(self, name: str) -> T:
        """The record called `name`; UnknownName, with near matches, if there is none."""
        try:
            return self._records[name]
        except (KeyError, TypeError):
            raise UnknownName(self.unknown(name)) from None

    def unknown(self, name: object) -> str:
        """The error message, in one line, for a `name` that is not registered."""
        listing = f" ({self.listing})" if self.listing else ""
        return f"unknown {self.kind} {name!r}.{did_you_mean(name, self._records)}{listing}"

    @contextmanager
    def temporary(self) -> Iterator[None]:
        """At the end of the block, forget what was registered in it: for tests and examples."""
        before = dict(self._records)
        try:
            yield
        finally:
            self._records = before

    def names(self) -> tuple[str, ...]:
        return tuple(self._records)

    def values(self) -> tuple[T, ...]:
        return tuple(self._records.values())

    def items(self) -> tuple[tuple[str, T], ...]:
        return tuple(self._records.items())

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)
