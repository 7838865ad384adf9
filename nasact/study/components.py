"""The parts a study chooses by name, each with options of its own; and what every part of its tree has in common.

Names are checked through `names`, options through `options`; what the parts mean together is `spec`'s business.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from nasact.study import name_validators, options, shorthand


def at(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """An error about the place `path` below the model that raises it."""
    return PydanticCustomError("at", "{message}", {"message": message, "path": path})


class Node(BaseModel):
    """A part of the tree: no unknown key, no conversion that the user did not write, no later change."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Component(Node):
    """A thing chosen by name, with options that only it understands. Written flat: `{name: mlp, hidden: [64, 64]}`."""

    kind: ClassVar[str]
    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, value: Any) -> Any:
        value = shorthand.named(value) if isinstance(value, str | dict) else value
        if not isinstance(value, dict) or (
            set(value) <= {"name", "options"} and isinstance(value.get("options"), dict)
        ):
            return value
        beside = {key: entry for key, entry in value.items() if key != "name"}
        return {**({"name": value["name"]} if "name" in value else {}), "options": beside}

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        mistake = options.mistake(self.kind, self.name, self.options)
        if mistake is not None:
            option, message = mistake
            raise at(() if option is None else (option,), message)
        return self

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class Dataset(Component):
    kind: ClassVar[str] = "dataset"
    name: Annotated[str, AfterValidator(name_validators.dataset)]


class Model(Component):
    kind: ClassVar[str] = "model"
    name: Annotated[str, AfterValidator(name_validators.model)]


class Strategy(Component):
    kind: ClassVar[str] = "strategy"
    name: Annotated[str, AfterValidator(name_validators.strategy)]


class Regulariser(Component):
    kind: ClassVar[str] = "regulariser"
    name: Annotated[str, AfterValidator(name_validators.regulariser)]


class Monitor(Component):
    kind: ClassVar[str] = "monitor"
    name: Annotated[str, AfterValidator(name_validators.monitor)]


class Kernel(Component):
    kind: ClassVar[str] = "kernel"
    name: Annotated[str, AfterValidator(name_validators.kernel)]


class Derivation(Component):
    kind: ClassVar[str] = "derivation"
    name: Annotated[str, AfterValidator(name_validators.derivation)]
