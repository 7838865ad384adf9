"""Errors that a user can cause. The message is one line: place, value, what was expected, the nearest right name.

The bottom room: it imports nothing of nasact. The CLI prints the line and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasactError(Exception):
    """A user's mistake or a failure of the environment, described in one line. Never raised for a bug of nasact."""

    exit_code = 2


class UnknownName(NasactError):
    """A name that its registry does not hold."""


class StudyError(NasactError):
    """A study that cannot be read, or that contradicts itself."""


class DataError(NasactError):
    """A data set that is missing, corrupt or out of its declared range."""


class ModelError(NasactError):
    """A model that cannot be built or does not fit its data."""


class SurgeryError(NasactError):
    """A model whose activation sites cannot be found or replaced."""


class MixtureError(NasactError):
    """An invalid mixture: an empty bank, weights that cannot be normalised, a level that does not fit the model."""


class GenotypeError(NasactError):
    """A genotype that cannot be read, or does not fit the model it is applied to."""


class StoreError(NasactError):
    """A study's files or database that cannot be used."""


class ExportError(NasactError):
    """An export that could not be written, or that does not compute what the trained network computes."""


class Divergence(NasactError):
    """A loss that is not finite. The trial ends as failed, with this reason; the study continues."""

    exit_code = 3


def one_line(text: object, limit: int | None = None) -> str:
    """`text` on one line of at most `limit` characters; an exception without a message gives the name of its type."""
    line = " ".join(str(text).split())
    if not line and isinstance(text, BaseException):
        line = type(text).__name__
    return line if limit is None or len(line) <= limit else line[: limit - 3] + "..."


def error_line(error: BaseException, limit: int | None = None) -> str:
    """`ValueError: its message` on one line of at most `limit` characters; only the type if there is no message."""
    name = type(error).__name__
    return one_line(f"{name}: {error}" if str(error).strip() else name, limit)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """` Did you mean 'darts'?`, or an empty string if no known name is similar."""
    near = difflib.get_close_matches(str(name), list(known), n=2, cutoff=0.6)
    return " Did you mean " + " or ".join(repr(match) for match in near) + "?" if near else ""
