"""Hypergradients: d validation loss / d alpha. Pure functions with one signature.

Knows a `Problem` and an `InnerStep`; must not know supernets or optimisers. Each file registers its functions, which
are then tested on every problem.
"""

from __future__ import annotations

from nasact.bilevel.hypergradients.base import HYPERGRADIENTS, Hypergradient, HypergradientFunction
from nasact.registry import import_submodules

import_submodules(__name__, __path__)

__all__ = ["HYPERGRADIENTS", "Hypergradient", "HypergradientFunction"]
