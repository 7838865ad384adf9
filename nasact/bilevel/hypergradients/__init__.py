"""Hypergradients: d validation loss / d alpha. Pure functions with one signature; to register one is to test it.

They know a `Problem` and an `InnerStep`; no supernet, no optimiser.
"""

from __future__ import annotations

from nasact.bilevel.hypergradients.base import Hypergradient, HypergradientFunction
from nasact.bilevel.hypergradients.finite_difference import finite_difference
from nasact.bilevel.hypergradients.first_order import first_order
from nasact.bilevel.hypergradients.implicit import (
    ImplicitHypergradient,
    implicit_conjugate_gradient,
    implicit_neumann,
)
from nasact.bilevel.hypergradients.second_order import mixed_product, second_order
from nasact.bilevel.hypergradients.unrolled import unrolled
from nasact.registry import Registry

HYPERGRADIENTS: Registry[HypergradientFunction] = Registry("hypergradient")
HYPERGRADIENTS.register("first_order", first_order)
HYPERGRADIENTS.register("second_order", second_order)
HYPERGRADIENTS.register("finite_difference", finite_difference)
HYPERGRADIENTS.register("unrolled", unrolled)
HYPERGRADIENTS.register("implicit_neumann", implicit_neumann)
HYPERGRADIENTS.register("implicit_conjugate_gradient", implicit_conjugate_gradient)

__all__ = [
    "HYPERGRADIENTS",
    "Hypergradient",
    "HypergradientFunction",
    "ImplicitHypergradient",
    "finite_difference",
    "first_order",
    "implicit_conjugate_gradient",
    "implicit_neumann",
    "mixed_product",
    "second_order",
    "unrolled",
]
