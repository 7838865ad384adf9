"""How many trials a study runs, and the points of its grid. Must not know engines: all of them use the same plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nasact.errors import StudyError

if TYPE_CHECKING:
    from nasact.outer.callbacks import Callbacks
    from nasact.study import Parameter, Study


def planned_trials(study: Study, callbacks: Callbacks) -> int:
    """The number of trials after which the study is finished; a message if the grid or the domains change it."""
    outer = study.spec.outer
    limit = f"(outer.trials is {outer.trials})"
    if not study.parameters:
        if outer.trials > 1:
            callbacks.message(f"no search domains: running one trial {limit}")
        return 1
    if outer.sampler != "grid":
        return outer.trials
    size = math.prod(len(values) for values in grid(study.parameters).values())
    if size < outer.trials:
        callbacks.message(f"the grid has {size} points: running {size} trials {limit}")
    elif size > outer.trials:
        callbacks.message(f"the grid has {size} points: running {outer.trials} of them {limit}")
    return min(size, outer.trials)


def grid(parameters: Mapping[str, Parameter]) -> dict[str, Sequence[str | int | float | bool]]:
    """The grid's values of every parameter; StudyError for a continuous domain without `points`."""
    values = {name: parameter.grid() for name, parameter in parameters.items()}
    for name, points in values.items():
        if points is None:
            raise StudyError(
                f"{name}: the sampler 'grid' needs `points: N` (or `choice: [...]`) in a continuous domain"
            )
    return {name: points for name, points in values.items() if points is not None}
