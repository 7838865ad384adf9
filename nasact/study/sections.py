"""The sections of a study (`task`, `search`, `derive`, ...): strict, frozen nodes with every default.

What contradicts itself inside one node is refused by that node; what is checked between nodes is in `checks`. Search
domains are not known here.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    model_serializer,
    model_validator,
)

from nasact.study import defaults, name_validators, shorthand
from nasact.study.components import (
    Component,
    Dataset,
    Derivation,
    Kernel,
    Model,
    Monitor,
    Node,
    Regulariser,
    Strategy,
    at,
)
from nasact.study.name_validators import named
from nasact.study.record_facts import has_momentum, is_annealed, supported_normalisers


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _top_k(value: Any) -> int | Literal["all"]:
    if value == "all" and isinstance(value, str):
        return "all"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"must be a whole number of at least 1, or 'all', but got {value!r}")
    return value


def _validation_fraction(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value <= 0:
            raise ValueError(
                f"must be greater than 0, but got {value}: the mixture weights are trained on the validation examples, "
                "and trials are judged by them"
            )
        if value >= 1:
            raise ValueError(
                f"must be less than 1, but got {value}: the network's weights are trained on the remaining examples"
            )
    return value


def _unique(given: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(given):
        if name in given[:index]:
            raise ValueError(f"{name!r} is given twice")
    return given


def _unique_names(components: tuple[Component, ...]) -> tuple[Component, ...]:
    _unique(tuple(component.name for component in components))
    return components


def _functions(value: Any) -> Any:
    return name_validators.space(value) if isinstance(value, str) else _as_tuple(value)


def _not_empty(functions: tuple[str, ...]) -> tuple[str, ...]:
    if not functions:
        raise ValueError("the candidate set is empty: name at least one function (nasact list functions)")
    return functions


_DEFAULT_MOMENTUM = 0.9
_DEFAULT_EPOCHS = 20

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
TopK = Annotated[int | Literal["all"], PlainValidator(_top_k, json_schema_input_type=int | Literal["all"])]
FunctionName = Annotated[str, AfterValidator(name_validators.function)]
Functions = Annotated[
    tuple[FunctionName, ...], BeforeValidator(_functions), AfterValidator(_not_empty), AfterValidator(_unique)
]
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple)]
Baselines = Annotated[
    tuple[Annotated[str, AfterValidator(name_validators.baseline)], ...],
    BeforeValidator(_as_tuple),
    AfterValidator(_unique),
]


class Task(Node):
    """The data, the model, and the fraction of the training data that is held out as validation data."""

    dataset: Dataset
    model: Model
    validation: Annotated[float, BeforeValidator(_validation_fraction), Field(gt=0, lt=1)] = 0.2
    train_limit: AtLeastOne | None = None
    test_limit: AtLeastOne | None = None


class Sites(Node):
    """Which activations of the model are searched, by shell patterns over their names."""

    include: Patterns = ("*",)
    exclude: Patterns = ()
    partial: bool = False


class Temperature(Node):
    """The temperature of the normaliser over the epochs of a search. A plain number is a constant temperature."""

    shorthand_key: ClassVar[str | None] = "start"

    start: Positive = 1.0
    end: Positive | None = None
    schedule: Annotated[str, AfterValidator(named("schedule"))] = "constant"
    scale_alpha_lr: bool = True
    """Whether alpha's learning rate falls with the temperature, so that the steps of alpha / T keep their size."""

    @classmethod
    def full_form(cls, value: Any) -> Any:
        return shorthand.temperature(value)

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return cls.full_form(value) if isinstance(value, int | float | dict) else value

    @model_validator(mode="after")
    def _end_fits_schedule(self) -> Temperature:
        annealed = is_annealed(self.schedule)
        if not annealed and self.end is not None:
            raise at(("end",), f"a {self.schedule} temperature has no `end` (schedule: exponential anneals towards it)")
        if annealed and self.end is None:
            raise at(("schedule",), f"schedule {self.schedule!r} needs an `end` greater than 0")
        return self


class Optimiser(Node):
    """The optimiser of the network's weights. Only sgd has `momentum`."""

    shorthand_key: ClassVar[str | None] = "name"

    name: Annotated[str, AfterValidator(named("optimiser"))] = "adam"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = _DEFAULT_MOMENTUM

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return cls.full_form(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _momentum_is_supported(self) -> Optimiser:
        if "momentum" in self.model_fields_set and not has_momentum(self.name):
            raise at(("momentum",), f"optimiser {self.name!r} has no momentum: use sgd")
        return self

    @model_serializer
    def _written_keys(self) -> dict[str, Any]:
        tree = {"name": self.name, "lr": self.lr, "weight_decay": self.weight_decay}
        # a default momentum is not written: if `name` is a domain, adam would refuse it
        return tree if self.momentum == _DEFAULT_MOMENTUM else tree | {"momentum": self.momentum}


class Redundancy(Node):
    """Which redundant candidates the search leaves out, judged at every site on one batch before the search."""

    drop: Annotated[str, AfterValidator(named("drop"))] = "none"
    """none; aliases: candidates that another one replaces; dependent: also those that several others combine to."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Largest residual of a redundant candidate, relative to its own variation."""
    input_scale: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 8.0
    """Training makes the inputs of sites larger: a candidate must be redundant also at inputs scaled by this factor."""


def _can_anneal(search: dict[str, Any]) -> bool:
    """Whether the search has two epochs to anneal over."""
    epochs, warmup = search.get("epochs", _DEFAULT_EPOCHS), search.get("warmup", 0)
    return isinstance(epochs, int) and isinstance(warmup, int) and epochs - warmup >= 2


class Search(Node):
    """How mixture weights and network weights are trained together."""

    strategy: Strategy = Field(default_factory=lambda: Strategy(name=defaults.default_strategy(None)))
    """Default: `gdas`, or `joint` with a normaliser that gdas does not support."""
    regularisers: Annotated[tuple[Regulariser, ...], BeforeValidator(_as_tuple), AfterValidator(_unique_names)] = ()
    level: Annotated[str, AfterValidator(named("level"))] = "layer"
    normaliser: Annotated[str, AfterValidator(named("normaliser"))] = "softmax"
    kernel: Kernel = Field(default_factory=lambda: Kernel(name="auto"))
    """How the mixtures are computed: it changes the speed, and results within the bounds of docs/performance.md."""
    init: Annotated[str, AfterValidator(named("init"))] = "uniform"
    temperature: Temperature = Field(default_factory=Temperature)
    epochs: AtLeastOne = _DEFAULT_EPOCHS
    warmup: Annotated[int, Field(ge=0)] = 0
    """Number of first epochs in which only the weights are trained."""
    batch_size: AtLeastOne = 64
    optimiser: Optimiser = Field(default_factory=Optimiser)
    monitors: Annotated[tuple[Monitor, ...], BeforeValidator(_as_tuple), AfterValidator(_unique_names)] = Field(
        default_factory=lambda: (Monitor(name="weights"),)
    )
    """What is measured after each epoch, in addition to losses and accuracy."""
    on_collapse: Annotated[str, AfterValidator(named("reaction to a collapse"))] = "report"
    """What happens when a monitor detects a collapse of the search: report, stop or roll_back."""

    @model_validator(mode="before")
    @classmethod
    def _fill_dependent_defaults(cls, value: Any) -> Any:
        """Fill in the strategy, its normaliser and its temperature where the study does not name them."""
        if not isinstance(value, dict):
            return value
        if "strategy" not in value:
            value = {**value, "strategy": defaults.default_strategy(value.get("normaliser"))}
        strategy = value["strategy"]
        name = strategy.get("name") if isinstance(strategy, dict) else getattr(strategy, "name", strategy)
        normalisers = supported_normalisers(name)
        if "normaliser" not in value and normalisers:
            value = {**value, "normaliser": normalisers[0]}
        if "temperature" in value or not _can_anneal(value):
            return value
        temperature = defaults.default_temperature(name, value.get("normaliser", "softmax"))
        return value if temperature is None else {**value, "temperature": temperature}


class Derive(Node):
    """How many functions a site keeps, and how they are chosen."""

    top_k: TopK = 1
    method: Derivation = Field(default_factory=lambda: Derivation(name="magnitude"))


class Retrain(Node):
    """How the derived network is trained from scratch. Default of `batch_size` and `optimiser`: those of the search."""

    epochs: AtLeastOne = 40
    batch_size: AtLeastOne | None = None
    optimiser: Optimiser | None = None


class Compare(Node):
    """The baselines that the derived network is compared with, and the number of seeds."""

    baselines: Baselines = name_validators.BASELINES
    seeds: AtLeastOne = 8
    """With fewer than 7, no difference to three baselines can be significant."""


class Outer(Node):
    """How the domains of the study are searched."""

    engine: Annotated[str, AfterValidator(named("engine"))] = "optuna"
    sampler: Annotated[str, AfterValidator(named("sampler"))] = "tpe"
    pruner: Annotated[str, AfterValidator(named("pruner"))] = "hyperband"
    trials: AtLeastOne = 20
    prune_by: str = "val_accuracy"
    """The metric of the search epochs by which the pruner compares trials."""
