"""The kinds of things that a study names. A row here is all that a new kind needs besides its key in the study's tree.

Names, messages, options, the JSON schema, `nasact list` and the docs follow from the row. A row names its registry as
text, because registries need torch: it is imported when a study is validated or a kind is listed, never before.
"""

from __future__ import annotations

import importlib
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from nasact.errors import NasactError, StudyError, did_you_mean
from nasact.options import from_options
from nasact.registry import Registry

Column = str | Callable[[Any], object]
"""What a list shows of a record: the name of an attribute, or a function of the record."""

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_OPTION_IN_MESSAGE = re.compile(r"option '(\w+)'")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of named thing.

    `registry`: "module:attribute" of a Registry, of a tuple or Literal of names, or of a function that returns records
    with a `name`. `choices`: the names themselves, for a kind that has no registry.
    """

    name: str
    """The noun in messages: `unknown strategy 'dart'`."""
    registry: str = ""
    list_names: str = ""
    """`module:function` that returns only the names, if reading the records takes time; default: the records' names."""
    choices: tuple[str, ...] = ()
    plural: str = ""
    """The word after `nasact list`; empty: the kind is not listed."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """Header -> what a list shows of each record, after its name and its options."""
    importable: bool = False
    """Whether a study may also give an import path (`package.module:function`) of the user's own code."""

    def records(self) -> dict[str, Any]:
        """Name -> record, in the order of registration; the record of a bare name is the name."""
        found = _imported(self.registry) if self.registry else self.choices
        if isinstance(found, Registry):
            return dict(found.items())
        if callable(found) and typing.get_origin(found) is None:
            return {record.name: record for record in found()}
        return {name: name for name in (typing.get_args(found) or found)}

    def names(self) -> tuple[str, ...]:
        return tuple(_imported(self.list_names)() if self.list_names else self.records())

    def validate(self, name: str) -> str:
        """`name` if it is known, or an import path where these are accepted; else a ValueError of one line."""
        if self.importable and ":" in name:
            if not _IMPORT_PATH.fullmatch(name):
                raise ValueError(f"an import path looks like 'package.module:function', but got {name!r}")
            return name  # what the path imports is checked when it is imported
        names = self.names()
        if name in names:
            return name
        near = did_you_mean(name, names)
        if self.importable and "." in name and not near:
            parent, _, last = name.rpartition(".")
            raise ValueError(f"unknown {self.name} {name!r}. An import path is written with a colon: '{parent}:{last}'")
        listing = f"nasact list {self.plural}" if self.plural else f"one of {', '.join(names)}"
        raise ValueError(f"unknown {self.name} {name!r}.{near} ({listing})")

    def option_error(self, name: str, options: Mapping[str, Any]) -> tuple[str | None, str] | None:
        """The option that the thing called `name` refuses (None: the combination) and why; None if all are accepted.

        The options of the user's own code, given by an import path, are not checked here.
        """
        record = self.records().get(name)
        if record is None:
            return None
        if is_dataclass(record) and isinstance(record, type):
            return _record_error(f"{self.name} {name!r}", record, options)
        from nasact.tasks.signature_options import check_options

        try:
            check_options(record.factory, options, supplied=record.supplied, place="", error=StudyError)
        except NasactError as error:
            message = str(error).removeprefix(": ")
            named = _OPTION_IN_MESSAGE.search(message)
            return named.group(1) if named else None, message
        return None

    def option_is_float(self, name: str, option: str) -> bool:
        """Whether the thing called `name` declares `option` as a float; False if either is unknown."""
        record = self.records().get(name)
        declared = record if isinstance(record, type) else getattr(record, "factory", None)
        return declared is not None and typing.get_type_hints(declared).get(option) is float

    def default_options(self, record: Any) -> dict[str, Any] | None:
        """Option -> default (`inspect.Parameter.empty`: required); None for a kind without options."""
        if is_dataclass(record) and isinstance(record, type):
            return {option.name: option.default for option in fields(record)}
        options: dict[str, Any] | None = getattr(record, "options", None)
        return options


def _imported(reference: str) -> Any:
    """The attribute that "module:attribute" names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _record_error(called: str, record: type, options: Mapping[str, Any]) -> tuple[str | None, str] | None:
    def refusal(some: Mapping[str, Any]) -> str | None:
        try:
            from_options(called, record, some)
        except NasactError as error:
            return str(error)
        return None

    message = refusal(options)
    if message is None:
        return None
    # An option may depend on the others (low = -8 needs high and knots that fit): only the same message names it.
    option = next((option for option, value in options.items() if refusal({option: value}) == message), None)
    return option, message.removeprefix(f"{option} ")


def _range(candidate: Any) -> str:
    return "[" + ", ".join(f"{end:.3g}" for end in candidate.range) + "]"


def _metrics(monitor: Any) -> Iterable[str]:
    return tuple(f"{metric} ({side} is better)" for metric, side in monitor.metrics.items())


_TABLE = (
    Kind(
        name="function",
        registry="nasact.activations:candidates",
        plural="functions",
        columns={
            "formula": "formula",
            "range": _range,
            "monotone": "monotone",
            "parameters": lambda candidate: tuple(beta.name for beta in candidate.betas),
            "aliases": "aliases",
            "source": "source",
        },
    ),
    Kind(
        name="search space",
        registry="nasact.activations:spaces",
        list_names="nasact.activations:space_names",
        plural="spaces",
        columns={"functions": "functions", "source": "source"},
    ),
    Kind(
        name="model",
        registry="nasact.tasks:MODELS",
        plural="models",
        columns={"description": "description", "source": "source"},
        importable=True,
    ),
    Kind(
        name="dataset",
        registry="nasact.tasks:DATASETS",
        plural="datasets",
        columns={"description": "description", "source": "source"},
        importable=True,
    ),
    Kind(
        name="strategy",
        registry="nasact.bilevel:STRATEGIES",
        plural="strategies",
        columns={"guarantee": "guarantee", "cost": "cost", "source": "source"},
    ),
    Kind(
        name="derivation",
        registry="nasact.derivation:DERIVATIONS",
        plural="derivations",
        columns={
            "summary": "summary",
            "cost": "cost",
            "levels": lambda method: method.levels or "all",
            "source": "source",
        },
    ),
    Kind(
        name="regulariser",
        registry="nasact.bilevel:REGULARISERS",
        plural="regularisers",
        columns={"formula": "formula", "loss": "target_loss", "source": "source"},
    ),
    Kind(
        name="monitor",
        registry="nasact.monitors:MONITORS",
        plural="monitors",
        columns={"metrics": _metrics, "summary": "summary", "cost": "cost", "source": "source"},
    ),
    Kind(
        name="normaliser",
        registry="nasact.mixture:NORMALISERS",
        plural="normalisers",
        columns={"weights": "formula", "signed": "signed", "source": "source"},
    ),
    Kind(name="kernel", registry="nasact.mixture:KERNELS", plural="kernels", columns={"summary": "summary"}),
    Kind(name="level", registry="nasact.mixture:LEVELS"),
    Kind(name="init", choices=("uniform", "original")),
    Kind(name="optimiser", registry="nasact.training.optimisers:OPTIMISERS"),
    Kind(name="schedule", registry="nasact.training.schedule:SCHEDULES"),
    Kind(name="drop", registry="nasact.redundancy:DROPS"),
    Kind(name="reaction to a collapse", registry="nasact.monitors:OnCollapse"),
    Kind(name="engine", registry="nasact.outer.engines:ENGINES"),
    Kind(name="sampler", choices=("tpe", "random", "grid")),
    Kind(name="pruner", choices=("hyperband", "median", "none")),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _TABLE}
