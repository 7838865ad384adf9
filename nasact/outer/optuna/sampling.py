"""Samplers and pruners that give the same results whether or not the process was killed in between.

Every draw is a function of the study's seed, the trial's number and the trials that finished before it.
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

# Studies have tens of trials: with Optuna's default of 10, half of such a study would be drawn at random.
STARTUP_TRIALS = 5
REDUCTION = 3


def suggest(trial: Trial, name: str, parameter: Parameter) -> Any:
    """The trial's value of a parameter, drawn by its study's sampler at the first call."""
    if isinstance(parameter, FloatRange):
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, IntRange):
        return trial.suggest_int(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
    return trial.suggest_categorical(name, parameter.choices)


class SeededSampler(BaseSampler):
    """A sampler with a new seed for every draw, from the study's seed, the trial's number and the parameter.

    An Optuna sampler with a fixed seed draws the same points again after a restart; without a seed it is not
    reproducible.
    """

    def __init__(self, build: Callable[[int], BaseSampler], seed: int) -> None:
        self._build = build
        self._seed = seed

    def _sampler(self, trial: FrozenTrial, name: str) -> BaseSampler:
        return self._build(draw_seed(self._seed, trial.number, name))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._sampler(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._sampler(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._sampler(trial, param_name).sample_independent(study, trial, param_name, param_distribution)


class ShuffledGridSampler(BaseSampler):
    """Trial number n is the n-th point of the shuffled grid.

    Optuna's own grid sampler calls `Study.stop`, which raises outside `Study.optimize`.
    """

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
    """The seed of trial `number`'s draw of parameter `name`."""
    return int(np.random.SeedSequence([seed, number, zlib.crc32(name.encode())]).generate_state(1)[0])


def build_sampler(study: Study) -> BaseSampler:
    outer, seed = study.spec.outer, study.spec.seed
    if outer.sampler == "grid":
        return ShuffledGridSampler(grid(study.parameters), seed)
    if outer.sampler == "random":
        return SeededSampler(lambda draw: RandomSampler(seed=draw), seed)
    return SeededSampler(lambda draw: TPESampler(seed=draw, n_startup_trials=STARTUP_TRIALS), seed)


def build_pruner(study: Study) -> BasePruner:
    outer = study.spec.outer
    if outer.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=_max_steps(study), reduction_factor=REDUCTION)
    return MedianPruner() if outer.pruner == "median" else NopPruner()


def _max_steps(study: Study) -> int:
    """The largest number of epochs after the warm-up that a trial of the study can have."""
    epochs = study.parameters.get("search.epochs")
    largest = study.spec.search.epochs if epochs is None else max(int(value) for value in epochs.extremes())
    return max(1, largest - study.spec.search.warmup)
