"""The supernet of a spec before its first step, without redundant candidates if the study has them dropped.

Knows specs and data; trains nothing. A function of both only, so that a continued trial builds the same supernet.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

from nasact.mixture import kernels
from nasact.redundancy import (
    INSPECTED_EXAMPLES,
    MIN_CANDIDATES,
    evenly_spaced_examples,
    inspect_banks,
    prune_redundant,
    redundancy_report,
)
from nasact.study import TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Supernet, relax
from nasact.tasks import Data
from nasact.training.schedule import build_schedule
from nasact.training.seeds import RandomStream, derive_seed


def begin_supernet(spec: TrialSpec, data: Data, warn: Callable[[str], None] | None = None) -> Supernet:
    """The supernet of a trial before its first step.

    `warn` is called with one line that names the redundant candidates that were dropped, and why.
    """
    seed = derive_seed(spec.seed, "search")
    options = spec.search
    with RandomStream(derive_seed(seed, "build")):
        model = build_study_model(spec, data, seed=derive_seed(seed, "model")).to(data.train.x.device)
        relaxed = partial(
            relax,
            model,
            level=options.level,
            normaliser=options.normaliser,
            kernel=kernels.build(options.kernel.name, options.kernel.options),
            init=cast(Literal["uniform", "original"], options.init),
            temperature=build_schedule(options.temperature).temperature(0, options.epochs),
            include=spec.sites.include,
            exclude=spec.sites.exclude,
            partial=spec.sites.partial,
            example_input=data.train.x[:2],
        )
        return prune_redundant(
            relaxed,
            spec.search_space,
            data.train.x,
            drop=spec.redundancy.drop,
            tolerance=spec.redundancy.tolerance,
            input_scale=spec.redundancy.input_scale,
            min_candidates=min_candidates(spec),
            protected=regulariser_candidates(spec),
            log=warn,
        )


def bank_redundancy(spec: TrialSpec, data: Data, supernet: Supernet) -> dict[str, Any]:
    """The redundancy of the study's full search space at each site before the first step, and what could be dropped.

    `supernet`: that of `begin_supernet`, before its first step.
    """
    x, options = evenly_spaced_examples(data.train.x, INSPECTED_EXAMPLES), spec.redundancy
    if options.drop != "none":
        undropped = spec.model_copy(update={"redundancy": options.model_copy(update={"drop": "none"})})
        supernet = begin_supernet(undropped, data)
    banks = inspect_banks(supernet, x, tolerance=options.tolerance, input_scale=options.input_scale)
    found = redundancy_report(
        spec.search_space,
        banks,
        drop=options.drop,
        tolerance=options.tolerance,
        input_scale=options.input_scale,
        min_candidates=min_candidates(spec),
        protected=regulariser_candidates(spec),
    )
    return {"examples": len(x), **found}


def min_candidates(spec: TrialSpec) -> int:
    """The smallest number of candidates with which the search and its derivation work."""
    top_k = spec.derive.top_k
    return MIN_CANDIDATES if top_k == "all" else max(MIN_CANDIDATES, top_k)


def regulariser_candidates(spec: TrialSpec) -> tuple[str, ...]:
    """The candidates that regularisers of the study name in their options, such as a function to pull towards."""
    values = [value for each in spec.search.regularisers for value in each.options.values()]
    return tuple(name for name in spec.search_space if name in values)
