"""The node `redundancy` of a study: what a candidate set is rid of before its search. Knows names, no banks."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from nasact.study.components import Node


def _drop(name: str) -> str:
    from nasact.errors import did_you_mean
    from nasact.redundancy import DROPS

    if name not in DROPS:
        raise ValueError(f"unknown drop {name!r}.{did_you_mean(name, DROPS)} (one of {', '.join(DROPS)})")
    return name


class Redundancy(Node):
    """What is left out of the candidate set because every site has it twice, judged on one batch before the search."""

    drop: Annotated[str, AfterValidator(_drop)] = "none"
    """none; aliases: what one other candidate replaces; dependent: also what several others make up together."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Relative to a function's own variation: how much of it the others may miss."""
    input_scale: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 8.0
    """Training widens what sites see: nothing goes that is not redundant at inputs so many times as large too."""
