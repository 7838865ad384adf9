"""What a pydantic model declares for a field, without its wrapping. Knows pydantic, and no node of a study."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union (`X | None`), without their Annotated wrapping; a plain type alone."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(kind for member in typing.get_args(annotation) for kind in alternatives(member))
    return (annotation,)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model among the alternatives of an annotation; None if there is none."""
    for kind in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def item_of(annotation: Any) -> Any:
    """The type of the entries of a tuple; None for any other annotation."""
    for kind in alternatives(annotation):
        if typing.get_origin(kind) is tuple:
            return typing.get_args(kind)[0]
    return None
