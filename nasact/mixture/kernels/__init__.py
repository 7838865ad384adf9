"""Kernels of the mixture op: one interface, interchangeable implementations, and `auto`, which chooses one of them.

A new kernel is one file in this folder that registers its record in KERNELS: it is then listed, accepted by studies and
run through the conformance tests.
"""

from __future__ import annotations

from nasact.mixture.kernels.automatic import Automatic
from nasact.mixture.kernels.base import KERNELS, Choice, Kernel, Op, Term, as_kernel
from nasact.mixture.kernels.fused import Fused
from nasact.mixture.kernels.reference import Reference
from nasact.mixture.kernels.table import Table
from nasact.registry import import_submodules

import_submodules(__name__, __path__)

build = KERNELS.build

__all__ = [
    "KERNELS",
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
