"""The catalogue: every function a site may hold, one frozen record each, and the named sets of them.

It imports nothing of nasact but registry, resources and errors; to import it is to fill the registry.
"""

from __future__ import annotations

# Each family registers its functions when it is imported: this order is the catalogue's.
# isort: off
from nasact.activations import rectified
from nasact.activations import saturating
from nasact.activations import exponential
from nasact.activations import gated
from nasact.activations import periodic
from nasact.activations import polynomial
from nasact.activations import parametric
from nasact.activations import coupled

# isort: on
from nasact.activations.candidate import Beta, Candidate, candidates, get, names, register, register_function
from nasact.activations.spaces import Space, get_space, load_space, read_space, space_names, spaces

__all__ = [
    "Beta",
    "Candidate",
    "Space",
    "candidates",
    "coupled",
    "exponential",
    "gated",
    "get",
    "get_space",
    "load_space",
    "names",
    "parametric",
    "periodic",
    "polynomial",
    "read_space",
    "rectified",
    "register",
    "register_function",
    "saturating",
    "space_names",
    "spaces",
]
