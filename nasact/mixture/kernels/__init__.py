"""Kernels of the mixture op: one interface, interchangeable implementations, one that chooses.

To register one is to have it listed, accepted by studies and run through the conformance tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasact.errors import MixtureError
from nasact.mixture.kernels.automatic import Automatic
from nasact.mixture.kernels.base import ORIGINAL, Choice, Kernel, Op, Term
from nasact.mixture.kernels.fused import Fused
from nasact.mixture.kernels.reference import Reference
from nasact.mixture.kernels.table import Table
from nasact.options import from_options
from nasact.registry import Registry

KERNELS: Registry[type[Kernel]] = Registry("kernel", "nasact list kernels")
for _kernel in (Automatic, Table, Fused, Reference):
    KERNELS.register(_kernel.name, _kernel)


def build(name: str, options: Mapping[str, Any]) -> Kernel:
    """The kernel called `name` with these options; StudyError names the option that is unknown or out of range."""
    return from_options(f"kernel {name!r}", KERNELS.get(name), options)


def as_kernel(kernel: str | Kernel) -> Kernel:
    """The kernel of that name with its default hyperparameters, or the given one; UnknownName, or MixtureError."""
    if isinstance(kernel, str):
        return KERNELS.get(kernel)()
    if isinstance(kernel, type) or not hasattr(kernel, "prepare"):
        raise MixtureError(
            f"a kernel is one of {', '.join(KERNELS.names())} or a record such as Table(knots=2049), but got {kernel!r}"
        )
    return kernel


__all__ = [
    "KERNELS",
    "ORIGINAL",
    "Automatic",
    "Choice",
    "Fused",
    "Kernel",
    "Op",
    "Reference",
    "Table",
    "Term",
    "as_kernel",
    "build",
]
