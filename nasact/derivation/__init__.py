"""Derivation: from a searched supernet to a genotype. Frozen records of options, chosen by name.

Knows training and validation data, never test data; must not know studies or trials. Each file with a derivation
registers its record, which is then listed, accepted in studies and tested.
"""

from nasact.derivation.base import (
    DERIVATIONS,
    CostEstimate,
    Derivation,
    DerivationContext,
    Derived,
    derive_by,
    refusal,
)
from nasact.registry import import_submodules

import_submodules(__name__, __path__)
build = DERIVATIONS.build

__all__ = [
    "DERIVATIONS",
    "CostEstimate",
    "Derivation",
    "DerivationContext",
    "Derived",
    "build",
    "derive_by",
    "refusal",
]
