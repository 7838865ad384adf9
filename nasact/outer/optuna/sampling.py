"""Samplers and pruners whose answers do not depend on whether the process was killed in between.

Every draw is a function of the study's seed, the trial's number and the trials finished before it.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial

from nasact.outer.plan import grid
from nasact.study import FloatRange, IntRange, Parameter

if TYPE_CHECKING:
    from nasact.study import Study

# Studies have tens of trials: with Optuna's ten, half of such a study would be drawn at random.
STARTUP_TRIALS = 5
REDUCTION = 3


def suggest(trial: Trial, name: str, parameter: Parameter) -> Any:
    if isinstance(parameter, FloatRange):
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, IntRange):
        return trial.suggest_int(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
    return trial.suggest_categorical(name, parameter.choices)


class _Seeded(BaseSampler):
    """A sampler whose every draw has its own seed: study seed, trial number, parameter.

    An Optuna sampler with a seed hands out the same points again after a restart, and one without is not reproducible.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build = build
        self._seed = seed

    def _at(self, trial: FrozenTrial, name: str) -> BaseSampler:
        return self._build(draw_seed(self._seed, trial.number, name))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._at(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._at(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._at(trial, param_name).sample_independent(study, trial, param_name, param_distribution)


class _Grid(BaseSampler):
    """Trial number n is the n-th point of the shuffled grid. (Optuna's own stops the study, which `tell` forbids.)"""

    def __init__(self, values: Mapping[str, Sequence[Any]], seed: int) -> None:
        points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
        self._points = [points[index] for index in np.random.default_rng(seed).permutation(len(points))]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._points[trial.number % len(self._points)][param_name]


def draw_seed(seed: int, number: int, name: str) -> int:
    return int(np.random.SeedSequence([seed, number, zlib.crc32(name.encode())]).generate_state(1)[0])


def build_sampler(study: Study) -> BaseSampler:
    outer, seed = study.spec.outer, study.spec.seed
    if outer.sampler == "grid":
        return _Grid(grid(study.parameters), seed)
    if outer.sampler == "random":
        return _Seeded(lambda one: RandomSampler(seed=one), seed)
    return _Seeded(lambda one: TPESampler(seed=one, n_startup_trials=STARTUP_TRIALS), seed)


def build_pruner(study: Study) -> BasePruner:
    outer = study.spec.outer
    if outer.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=_most_epochs(study), reduction_factor=REDUCTION)
    return MedianPruner() if outer.pruner == "median" else NopPruner()


def _most_epochs(study: Study) -> int:
    epochs = study.parameters.get("search.epochs")
    most = study.spec.search.epochs if epochs is None else max(int(value) for value in epochs.extremes())
    return max(1, most - study.spec.search.warmup)
