"""The supernet of a spec before its first step, without redundant candidates where the study asks for that.

Knows specs and data; trains nothing. A function of both alone, so that a trial that continues begins in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

from nasact.mixture import kernels
from nasact.redundancy import EXAMPLES, LEAST, inspect_banks, prune_redundant, redundancy_report, spread_examples
from nasact.study import TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Supernet, relax
from nasact.tasks import Data
from nasact.training.schedule import build_schedule
from nasact.training.seeds import RandomStream, derive_seed


def begin_supernet(spec: TrialSpec, data: Data, tell: Callable[[str], None] | None = None) -> Supernet:
    """The supernet of a trial before its first step; `tell` hears which candidates redundancy left out, and why."""
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
            least=least_candidates(spec),
            protected=named_by_parts(spec),
            tell=tell,
        )


def bank_redundancy(spec: TrialSpec, data: Data) -> dict[str, Any]:
    """What the candidate set that the study asks for looks like at each site before the first step, and what may go."""
    asked = spec.model_copy(update={"redundancy": spec.redundancy.model_copy(update={"drop": "none"})})
    x, options = spread_examples(data.train.x, EXAMPLES), spec.redundancy
    banks = inspect_banks(begin_supernet(asked, data), x, tolerance=options.tolerance, input_scale=options.input_scale)
    found = redundancy_report(
        spec.search_space,
        banks,
        drop=options.drop,
        tolerance=options.tolerance,
        input_scale=options.input_scale,
        least=least_candidates(spec),
        protected=named_by_parts(spec),
    )
    return {"examples": len(x), **found}


def least_candidates(spec: TrialSpec) -> int:
    """How many candidates a search and its derivation need."""
    top_k = spec.derive.top_k
    return LEAST if top_k == "all" else max(LEAST, top_k)


def named_by_parts(spec: TrialSpec) -> tuple[str, ...]:
    """The candidates that the study needs by name: a regulariser may pull towards one."""
    values = [value for each in spec.search.regularisers for value in each.options.values()]
    return tuple(name for name in spec.search_space if name in values)
