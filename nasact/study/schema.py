"""A JSON schema of the study as it is written, for editors and docs: short forms and domains included.

Describes shapes only. `Study` checks what a schema cannot express: known names, and contradictions between keys.
"""

from __future__ import annotations

from typing import Any

from nasact.study.components import Component
from nasact.study.fields import node_places
from nasact.study.shorthand import MAIN_OPTION
from nasact.study.spec import NOT_OF_A_TRIAL, TrialSpec

_SCALARS = ("string", "number", "integer", "boolean")
_SCALAR = {"type": list(_SCALARS)}
_WHOLE = {"type": "integer", "minimum": 1}
_DOMAINS: dict[str, Any] = {
    "Range": {
        "type": "object",
        "required": ["low", "high"],
        "additionalProperties": False,
        "properties": {
            "low": {"type": "number"},
            "high": {"type": "number"},
            "log": {"type": "boolean"},
            "step": _WHOLE,
            "points": {"type": "integer", "minimum": 2},
        },
    },
    "Choice": {
        "type": "object",
        "required": ["choice"],
        "additionalProperties": False,
        "properties": {"choice": {"type": "array", "minItems": 1, "items": _SCALAR}},
    },
    "Subset": {
        "type": "object",
        "required": ["subset"],
        "additionalProperties": False,
        "properties": {"subset": {"type": ["array", "string"], "minItems": 1, "items": _SCALAR}, "min": _WHOLE},
    },
}
_ANY_DOMAIN = [{"$ref": "#/$defs/Range"}, {"$ref": "#/$defs/Choice"}]


def json_schema() -> dict[str, Any]:
    """The schema of a study's YAML."""
    schema = TrialSpec.model_json_schema(mode="validation")
    definitions: dict[str, Any] = schema["$defs"]
    without_domains = {node.__name__ for path, node, _ in node_places() if path[0] in NOT_OF_A_TRIAL}
    for node in {place.node for place in node_places()}:
        name = node.__name__
        if issubclass(node, Component):
            definitions[name] = _component(definitions[name])
        elif name not in without_domains:
            plain = definitions[name]["properties"].get(node.shorthand_key, {})
            short = [{"type": plain["type"]}, *_ANY_DOMAIN] if plain else []
            opened = _open(definitions[name])
            definitions[name] = {"anyOf": [*short, opened]} if short else opened
    for name, entry in schema["properties"].items():
        if name not in NOT_OF_A_TRIAL:
            schema["properties"][name] = _or_domain(entry)
    space = schema["properties"]["search_space"]
    schema["properties"]["search_space"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Choice"}, space]}
    return {**schema, "title": "Study", "$defs": {**definitions, **_DOMAINS}}


def _component(definition: dict[str, Any]) -> dict[str, Any]:
    """A name, or a mapping of a name and any options; a dataset also by its main option."""
    name = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Choice"}]}
    described = {"title": definition["title"]}
    full = [{"type": "object", "required": ["name"], "properties": {"name": name}}]
    short = [{"type": "object", "required": [option]} for option in MAIN_OPTION if definition.get("title") == "Dataset"]
    return {**described, "anyOf": [name, *full, *short]}


def _open(definition: dict[str, Any]) -> dict[str, Any]:
    """The same definition, with domains allowed wherever it holds a scalar or a list."""
    properties = definition.get("properties", {})
    for name, entry in properties.items():
        properties[name] = _or_domain(entry)
    return definition


def _or_domain(entry: dict[str, Any]) -> dict[str, Any]:
    kinds = [entry.get("type"), *(option.get("type") for option in entry.get("anyOf", []))]
    if "array" in kinds:
        items = {**entry, "items": _or_domain(entry["items"])} if "items" in entry else entry
        return {"anyOf": [items, {"$ref": "#/$defs/Subset"}]}
    return {"anyOf": [entry, *_ANY_DOMAIN]} if any(kind in _SCALARS for kind in kinds) else entry
