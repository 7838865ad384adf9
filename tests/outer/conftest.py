"""The registered engines: registering an engine is testing it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from outer_standin import study

from nasact.outer.engines import ENGINES
from nasact.study import Study


@pytest.fixture(params=ENGINES.names())
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def make_study(engine: str) -> Callable[..., Study]:
    """`outer_standin.study` for the engine under test."""
    return partial(study, engine)
