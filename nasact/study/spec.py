"""TrialSpec: everything one trial is told, as a strict, frozen tree of plain values. Search domains are not known here.

Names are checked through `names`; whatever contradicts itself is refused. Errors are pydantic's, told to users by
`problems`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    model_serializer,
    model_validator,
)

from nasact.study import monitoring, name_validators, options, shorthand, together
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
from nasact.study.redundancy import Redundancy

NOT_OF_A_TRIAL = ("name", "outer", "compare")


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _top_k(value: Any) -> int | Literal["all"]:
    if value == "all" and isinstance(value, str):
        return "all"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"must be a whole number of at least 1, or 'all', but got {value!r}")
    return value


def _held_out(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value <= 0:
            raise ValueError(
                f"must be greater than 0, but got {value}: the mixture weights are trained on the validation examples, "
                "and trials are judged by them"
            )
        if value >= 1:
            raise ValueError(
                f"must be less than 1, but got {value}: the network's weights are trained on the examples that are left"
            )
    return value


def _unique(names_: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names_):
        if name in names_[:index]:
            raise ValueError(f"{name!r} is given twice")
    return names_


def _once(components: tuple[Component, ...]) -> tuple[Component, ...]:
    _unique(tuple(component.name for component in components))
    return components


def _functions(value: Any) -> Any:
    return name_validators.space(value) if isinstance(value, str) else _as_tuple(value)


def _some(functions: tuple[str, ...]) -> tuple[str, ...]:
    if not functions:
        raise ValueError("the candidate set is empty: name at least one function (nasact list functions)")
    return functions


_MOMENTUM = 0.9
_EPOCHS = 20

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
TopK = Annotated[int | Literal["all"], PlainValidator(_top_k, json_schema_input_type=int | Literal["all"])]
FunctionName = Annotated[str, AfterValidator(name_validators.function)]
Functions = Annotated[
    tuple[FunctionName, ...], BeforeValidator(_functions), AfterValidator(_some), AfterValidator(_unique)
]
Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_tuple)]
Baselines = Annotated[
    tuple[Annotated[str, AfterValidator(name_validators.baseline)], ...],
    BeforeValidator(_as_tuple),
    AfterValidator(_unique),
]


class Task(Node):
    """What is learnt: data, model, and how much of the training data is held out to choose by."""

    dataset: Dataset
    model: Model
    validation: Annotated[float, BeforeValidator(_held_out), Field(gt=0, lt=1)] = 0.2
    train_limit: AtLeastOne | None = None
    test_limit: AtLeastOne | None = None


class Sites(Node):
    """Which activations of the model are searched, by patterns of their name_validators."""

    include: Patterns = ("*",)
    exclude: Patterns = ()
    partial: bool = False


class Temperature(Node):
    """The temperature of the normaliser over the epochs of a search."""

    start: Positive = 1.0
    end: Positive | None = None
    schedule: Annotated[str, AfterValidator(name_validators.schedule)] = "constant"
    scale_alpha_lr: bool = True
    """Whether alpha's learning rate falls with the temperature, so that alpha / T keeps its pace."""

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return shorthand.temperature(value) if isinstance(value, int | float | dict) else value

    @model_validator(mode="after")
    def _end_fits_schedule(self) -> Temperature:
        if self.schedule == "constant" and self.end is not None:
            raise at(("end",), "a constant temperature has no `end` (schedule: exponential anneals towards it)")
        if self.schedule != "constant" and self.end is None:
            article = "an" if self.schedule == "exponential" else "a"
            raise at(("schedule",), f"{article} {self.schedule} temperature needs an `end` greater than 0")
        return self


class Optimiser(Node):
    """What trains the network's weights. `momentum` belongs to sgd."""

    name: Annotated[str, AfterValidator(name_validators.optimiser)] = "adam"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = _MOMENTUM

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return shorthand.named(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Optimiser:
        if self.name != "sgd" and "momentum" in self.model_fields_set:
            raise at(("momentum",), f"only sgd has a momentum, but the optimiser is {self.name!r}")
        return self

    @model_serializer
    def _own_keys(self) -> dict[str, Any]:
        tree = {"name": self.name, "lr": self.lr, "weight_decay": self.weight_decay}
        # a momentum that was not chosen is not written down: where `name` is a domain, adam would refuse it
        return tree if self.momentum == _MOMENTUM else tree | {"momentum": self.momentum}


def _anneals(search: dict[str, Any]) -> bool:
    """Whether there are two epochs to anneal over."""
    epochs, warmup = search.get("epochs", _EPOCHS), search.get("warmup", 0)
    return isinstance(epochs, int) and isinstance(warmup, int) and epochs - warmup >= 2


class Search(Node):
    """How mixture weights and network weights are trained together."""

    strategy: Strategy = Field(default_factory=lambda: Strategy(name=name_validators.strategy_for(None)))
    """`gdas` where none is named, or `joint` for a normaliser that gdas cannot serve."""
    regularisers: Annotated[tuple[Regulariser, ...], BeforeValidator(_as_tuple), AfterValidator(_once)] = ()
    level: Annotated[str, AfterValidator(name_validators.level)] = "layer"
    normaliser: Annotated[str, AfterValidator(name_validators.normaliser)] = "softmax"
    kernel: Kernel = Field(default_factory=lambda: Kernel(name="auto"))
    """What computes the mixtures: a matter of speed, and of errors within its bounds."""
    init: Annotated[str, AfterValidator(name_validators.init)] = "uniform"
    temperature: Temperature = Field(default_factory=Temperature)
    epochs: AtLeastOne = _EPOCHS
    warmup: Annotated[int, Field(ge=0)] = 0
    """Epochs at the beginning in which only the weights are trained."""
    batch_size: AtLeastOne = 64
    optimiser: Optimiser = Field(default_factory=Optimiser)
    monitors: Annotated[tuple[Monitor, ...], BeforeValidator(_as_tuple), AfterValidator(_once)] = Field(
        default_factory=lambda: (Monitor(name="weights"),)
    )
    """What is measured after each epoch, beside losses and accuracy."""
    on_collapse: Annotated[str, AfterValidator(name_validators.on_collapse)] = "report"
    """What follows when a monitor tells that the search has collapsed: report, stop or roll_back."""

    @model_validator(mode="before")
    @classmethod
    def _made_for_each_other(cls, value: Any) -> Any:
        """Where no strategy is named, the one of choice; where no normaliser and no temperature is, the strategy's."""
        if not isinstance(value, dict):
            return value
        if "strategy" not in value:
            value = {**value, "strategy": name_validators.strategy_for(value.get("normaliser"))}
        strategy = value["strategy"]
        name = strategy.get("name") if isinstance(strategy, dict) else getattr(strategy, "name", strategy)
        served = name_validators.normalisers_of(name)
        if "normaliser" not in value and served:
            value = {**value, "normaliser": served[0]}
        own = name_validators.temperature_of(name, value.get("normaliser", "softmax"))
        return {**value, "temperature": own} if own and "temperature" not in value and _anneals(value) else value

    @model_validator(mode="after")
    def _strategy_serves_normaliser(self) -> Search:
        refused = together.refused_normaliser(self)
        if refused is not None:
            raise at(*refused)
        return self

    @model_validator(mode="after")
    def _schedules_have_their_epochs(self) -> Search:
        refused = together.refused_length(self)
        if refused is not None:
            raise at(*refused)
        return self


class Derive(Node):
    """How many functions a site keeps, and how they are chosen."""

    top_k: TopK = 1
    method: Derivation = Field(default_factory=lambda: Derivation(name="magnitude"))


class Retrain(Node):
    """How the derived network is trained from scratch; what is not given is as in the search."""

    epochs: AtLeastOne = 40
    batch_size: AtLeastOne | None = None
    optimiser: Optimiser | None = None


class Compare(Node):
    """What the derived network is compared with, and over how many seeds."""

    baselines: Baselines = name_validators.BASELINES
    seeds: AtLeastOne = 8
    """With fewer than 7, no difference to three baselines can be significant."""


class Outer(Node):
    """How the domains of the study are searched."""

    engine: Annotated[str, AfterValidator(name_validators.engine)] = "optuna"
    sampler: Annotated[str, AfterValidator(name_validators.sampler)] = "tpe"
    pruner: Annotated[str, AfterValidator(name_validators.pruner)] = "hyperband"
    trials: AtLeastOne = 20
    prune_by: str = "val_accuracy"
    """The metric of the search's epochs that the pruner compares trials by."""


class TrialSpec(Node):
    """One trial, fully decided."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    task: Task
    search_space: Functions
    sites: Sites = Field(default_factory=Sites)
    redundancy: Redundancy = Field(default_factory=Redundancy)
    search: Search = Field(default_factory=Search)
    derive: Derive = Field(default_factory=Derive)
    retrain: Retrain = Field(default_factory=Retrain)
    compare: Compare = Field(default_factory=Compare)
    outer: Outer = Field(default_factory=Outer)

    @model_validator(mode="after")
    def _top_k_is_there(self) -> TrialSpec:
        refused = together.refused_top_k(self)
        if refused is not None:
            raise at(*refused)
        return self

    @model_validator(mode="after")
    def _derivation_serves_level(self) -> TrialSpec:
        served, name = name_validators.levels_of(self.derive.method.name), self.derive.method.name
        if served and self.search.level not in served:
            message = (
                f"derivation {name!r} needs level {' or '.join(served)}, but search.level is {self.search.level!r}"
            )
            raise at(("derive", "method"), message)
        return self

    @model_validator(mode="after")
    def _regularisers_serve(self) -> TrialSpec:
        refused = options.refused_regulariser(self.search, self.search_space)
        if refused is not None:
            raise at(("search", "regularisers", refused[0]), refused[1])
        return self

    @model_validator(mode="after")
    def _monitors_serve(self) -> TrialSpec:
        refused = monitoring.refused(self)
        if refused is not None:
            raise at(*refused)
        return self

    def to_tree(self) -> dict[str, Any]:
        """The same as plain JSON types, in the form a study is written in."""
        return self.model_dump(mode="json")

    def key(self) -> str:
        """Equal for two specs exactly if they ask for the same trial: name, outer loop and comparison are left out."""
        own = {part: value for part, value in self.to_tree().items() if part not in NOT_OF_A_TRIAL}
        return hashlib.sha256(canonical_json(own).encode()).hexdigest()[:16]


def canonical_json(tree: Any) -> str:
    """One text for one tree, whatever the order of its keys."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
