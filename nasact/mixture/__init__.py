"""The mixture of candidate functions: normalisers, levels, the op with its kernels, the modules.

Computes `sum_k p_k f_k(x; beta_k)` with `p = normaliser(alpha)`. Knows the catalogue; must not know models or searches.
"""

from nasact.mixture import kernels
from nasact.mixture.kernels import KERNELS, Automatic, Choice, Fused, Kernel, Reference, Table, as_kernel
from nasact.mixture.layout import LEVELS, Layout
from nasact.mixture.module import Activation, Bank, FrozenMixture, Mixture
from nasact.mixture.normalisers import NORMALISERS, Normaliser

__all__ = [
    "KERNELS",
    "LEVELS",
    "NORMALISERS",
    "Activation",
    "Automatic",
    "Bank",
    "Choice",
    "FrozenMixture",
    "Fused",
    "Kernel",
    "Layout",
    "Mixture",
    "Normaliser",
    "Reference",
    "Table",
    "as_kernel",
    "kernels",
]
