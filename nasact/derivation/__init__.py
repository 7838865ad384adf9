"""Derivation: how a supernet that was searched becomes a genotype. Frozen records of options, chosen by name.

Sees training and validation data; never test data. Knows no study and no trial. To register is to be listed and tested.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nasact.derivation.base import CostEstimate, Derivation, DerivationContext, Derived, refusal
from nasact.derivation.magnitude import Magnitude
from nasact.derivation.perturbation import Perturbation
from nasact.derivation.refit import Refit
from nasact.derivation.validated import Validated
from nasact.options import from_options
from nasact.registry import Registry
from nasact.supernet.derivation import TopK
from nasact.training.seeds import RandomStream, derive_seed

DERIVATIONS: Registry[type[Derivation]] = Registry("derivation", "nasact list derivations")
DERIVATIONS.register("magnitude", Magnitude)
DERIVATIONS.register("perturbation", Perturbation)
DERIVATIONS.register("refit", Refit)
DERIVATIONS.register("validated", Validated)


def build(name: str, options: Mapping[str, Any]) -> Derivation:
    """The derivation called `name` with these options; StudyError names the option that is unknown or out of range."""
    return from_options(f"derivation {name!r}", DERIVATIONS.get(name), options)


def derive_by(method: Derivation, context: DerivationContext, top_k: TopK = 1) -> Derived:
    """`method.derive` in a random stream of its own, with the `seconds` that it took among the metrics."""
    started = time.perf_counter()
    with RandomStream(derive_seed(context.seed, "derivation")):
        derived = method.derive(context, top_k)
    return replace(derived, metrics={**derived.metrics, "seconds": time.perf_counter() - started})


__all__ = [
    "DERIVATIONS",
    "CostEstimate",
    "Derivation",
    "DerivationContext",
    "Derived",
    "Magnitude",
    "Perturbation",
    "Refit",
    "TopK",
    "Validated",
    "build",
    "derive_by",
    "refusal",
]
