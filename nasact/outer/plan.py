"""How many trials a study comes to, and the points of its grid. Knows no engine: each of them has to agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nasact.errors import StudyError

if TYPE_CHECKING:
    from nasact.outer.callbacks import Callbacks
    from nasact.study import Parameter, Study


def planned(study: Study, events: Callbacks) -> int:
    """How many trials the study is finished with; says so where that is not `outer.trials`."""
    outer = study.spec.outer
    if not study.parameters:
        if outer.trials > 1:
            events.message(f"no search domains: running one trial (outer.trials is {outer.trials})")
        return 1
    if outer.sampler != "grid":
        return outer.trials
    size = math.prod(len(values) for values in grid(study.parameters).values())
    if size < outer.trials:
        events.message(f"the grid has {size} points: running {size} trials (outer.trials is {outer.trials})")
    elif size > outer.trials:
        events.message(f"the grid has {size} points: running {outer.trials} of them (outer.trials is {outer.trials})")
    return min(size, outer.trials)


def grid(parameters: Mapping[str, Parameter]) -> dict[str, Sequence[str | int | float | bool]]:
    """Every value of every parameter; StudyError for a continuous domain without `points`."""
    values = {name: parameter.grid() for name, parameter in parameters.items()}
    for name, points in values.items():
        if points is None:
            raise StudyError(
                f"{name}: the sampler 'grid' needs `points: N` (or `choice: [...]`) in a continuous domain"
            )
    return {name: points for name, points in values.items() if points is not None}
