"""nasact decides which activation function goes where in a torch network: activation selection as architecture search.

    supernet = nasact.relax(model, space="basic")      # every activation site becomes a trainable mixture
    ... train supernet.weight_parameters() and supernet.arch_parameters() ...
    genotype = nasact.derive(supernet, top_k=1)         # the discrete choice, readable and serialisable
    net = genotype.apply(model)                         # an ordinary module

Names are imported on first use: `import nasact` itself costs nothing.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from nasact.version import __version__

if TYPE_CHECKING:
    from nasact.activations import Candidate, register_function
    from nasact.errors import NasactError
    from nasact.outer.run import StudyResult, run_study
    from nasact.outer.study_view import StudyView, load_study_view
    from nasact.report.frames import comparison_frame, trials_frame
    from nasact.study import Study
    from nasact.supernet import Genotype, Supernet, derive, find_sites, relax

_MODULE_OF = {
    "Candidate": "nasact.activations",
    "Genotype": "nasact.supernet",
    "NasactError": "nasact.errors",
    "Study": "nasact.study",
    "StudyResult": "nasact.outer.run",
    "StudyView": "nasact.outer.study_view",
    "Supernet": "nasact.supernet",
    "comparison_frame": "nasact.report.frames",
    "derive": "nasact.supernet",
    "find_sites": "nasact.supernet",
    "load_study_view": "nasact.outer.study_view",
    "register_function": "nasact.activations",
    "relax": "nasact.supernet",
    "run_study": "nasact.outer.run",
    "trials_frame": "nasact.report.frames",
}

_RENAMED = {"StudyState": "StudyView", "load_state": "load_study_view"}
"""Old public name -> new public name."""

__all__ = [
    "Candidate",
    "Genotype",
    "NasactError",
    "Study",
    "StudyResult",
    "StudyView",
    "Supernet",
    "__version__",
    "comparison_frame",
    "derive",
    "find_sites",
    "load_study_view",
    "register_function",
    "relax",
    "run_study",
    "trials_frame",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(f"nasact.{name} is now nasact.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'nasact' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
