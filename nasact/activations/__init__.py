"""The catalogue: every function that a site may hold, one frozen record each, and named sets of them.

Importing this package fills the registry. It knows only registry, resources and errors.
"""

from __future__ import annotations

from nasact.activations.candidate import Beta, Candidate, candidates, get, names, register, register_function
from nasact.activations.spaces import Space, get_space, load_space, read_space, space_names, spaces
from nasact.registry import import_submodules

# Each family of functions is a module that registers them when it is imported, so this is the catalogue's order:
# relu and its relatives first. A new family needs no line here; it comes last.
_FAMILIES = ("rectified", "saturating", "exponential", "gated", "periodic", "polynomial", "parametric", "coupled")
import_submodules(__name__, __path__, first=_FAMILIES)

__all__ = [
    "Beta",
    "Candidate",
    "Space",
    "candidates",
    "get",
    "get_space",
    "load_space",
    "names",
    "read_space",
    "register",
    "register_function",
    "space_names",
    "spaces",
]
