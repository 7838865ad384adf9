"""The parts of a study that are chosen by name, each with options of its own; and what all nodes of the tree share.

Names and options are checked through `kinds`; contradictions between parts are the business of `checks`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from nasact.kinds import KINDS
from nasact.study import shorthand


def at(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """An error about the place `path` below the model that raises it."""
    return PydanticCustomError("at", "{message}", {"message": message, "path": path})


class Node(BaseModel):
    """A part of the tree: unknown keys and implicit conversions are refused, and it cannot be changed later."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    shorthand_key: ClassVar[str | None] = None
    """The key that a plain value stands for: `adam` is `{name: adam}`; None: the node has no short form."""

    @classmethod
    def full_form(cls, value: Any) -> Any:
        """`value` as the mapping that it stands for."""
        return value if cls.shorthand_key is None or isinstance(value, dict) else {cls.shorthand_key: value}


class Component(Node):
    """A thing chosen by name, with its own options. Written flat: `{name: mlp, hidden: [64, 64]}`."""

    shorthand_key: ClassVar[str | None] = "name"
    kind: ClassVar[str]
    """The row of `kinds` that the name is looked up in."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def full_form(cls, value: Any) -> Any:
        return shorthand.named(value)

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, value: Any) -> Any:
        value = cls.full_form(value) if isinstance(value, str | dict) else value
        if not isinstance(value, dict) or (
            set(value) <= {"name", "options"} and isinstance(value.get("options"), dict)
        ):
            return value
        options = {key: entry for key, entry in value.items() if key != "name"}
        return {**({"name": value["name"]} if "name" in value else {}), "options": options}

    @field_validator("name")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        return KINDS[cls.kind].validate(name)

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        error = KINDS[self.kind].option_error(self.name, self.options)
        if error is not None:
            option, message = error
            raise at(() if option is None else (option,), message)
        return self

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class Dataset(Component):
    kind: ClassVar[str] = "dataset"


class Model(Component):
    kind: ClassVar[str] = "model"


class Strategy(Component):
    kind: ClassVar[str] = "strategy"


class Regulariser(Component):
    kind: ClassVar[str] = "regulariser"


class Monitor(Component):
    kind: ClassVar[str] = "monitor"


class Kernel(Component):
    kind: ClassVar[str] = "kernel"


class Derivation(Component):
    kind: ClassVar[str] = "derivation"
