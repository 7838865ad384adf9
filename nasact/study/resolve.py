"""A raw tree -> its domains, a representative TrialSpec and the tree in full form; or every mistake, with its place.

A domain is checked by its field: its representative and each of its ends (or choices) are validated in its place, and
so is every pair of ends of two domains that `checks` compare.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from nasact.kinds import KINDS
from nasact.study import name_validators
from nasact.study.domains import Choice, Domain, DomainError, FloatRange, as_floats, is_domain, parse, put, walk
from nasact.study.fields import component_at, field_at, short_forms
from nasact.study.problems import Problem, shown, study_error, translate
from nasact.study.record_facts import has_temperature
from nasact.study.sections import Temperature
from nasact.study.shorthand import Path, expand
from nasact.study.source import Source, dotted
from nasact.study.spec import NOT_OF_A_TRIAL, TrialSpec

_SPACE: Path = ("search_space",)
_NORMALISER: Path = ("search", "normaliser")
_TEMPERATURE: Path = ("search", "temperature")
_EPOCHS: Path = ("search", "epochs")
_WARMUP: Path = ("search", "warmup")
_COMPARED_SECTIONS = ({"search_space", "derive"}, {"search", "derive"})
_INTEGER_LIMIT = 2**63


@dataclass(frozen=True)
class Resolved:
    """A resolved tree: `tree` has every default; `domains` are in the order of `tree`."""

    spec: TrialSpec
    domains: tuple[tuple[Path, Domain], ...]
    tree: dict[str, Any]


def resolve(raw: Mapping[str, Any], source: Source | None = None) -> Resolved:
    """Resolve a tree; raise StudyError with one line for each mistake."""
    problems: list[Problem] = []
    tree = _plain_values(raw, (), problems)
    if not isinstance(tree, dict):
        raise study_error(problems or [Problem((), f"a study is a mapping, but got {shown(raw)}")], source)
    tree = _parse_domains(tree, (), problems)
    rules = {path: (str(node.shorthand_key), node.full_form) for path, node in short_forms().items()}
    tree, written = expand(tree, rules)
    domains = _typed_domains(tree, written, problems)
    template = _put_all(tree, {path: domain.representative() for path, domain in domains.items()})
    spec, mistakes = validate(template, written)
    mistakes = [mistake for mistake in mistakes if not any(_is_within(mistake, broken.path) for broken in problems)]
    problems += _check_extremes(template, domains, written, mistakes)
    if spec is None or problems:
        raise study_error(problems, source)
    problems += (
        _check_pairs(template, domains, written)
        + _check_grid(spec, domains, written)
        + _check_temperature(spec, domains)
    )
    if problems:
        raise study_error(problems, source)
    return _resolved(spec, domains)


def validate(
    tree: dict[str, Any], written: Mapping[Path, Path] | None = None
) -> tuple[TrialSpec | None, list[Problem]]:
    """The spec of a tree without domains, or None and its problems."""
    try:
        return TrialSpec.model_validate(tree), []
    except ValidationError as error:
        return None, translate(error, written)


def _resolved(spec: TrialSpec, domains: Mapping[Path, Domain]) -> Resolved:
    tree = _put_all(spec.to_tree(), domains)
    ordered = tuple((path, value) for path, value in walk(tree) if isinstance(value, Domain))
    return Resolved(spec, ordered, _put_all(tree, {path: domain.node() for path, domain in ordered}))


def _plain_values(value: Any, path: Path, problems: list[Problem]) -> Any:
    """The tree in the types of YAML and JSON: tuples become lists, numbers that are not finite are refused."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                problems.append(Problem(path, f"a key is a word, but got {shown(key)}"))
        return {str(key): _plain_values(entry, (*path, str(key)), problems) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_values(entry, (*path, index), problems) for index, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(path, f"expected a finite number, but got {value}"))
    elif isinstance(value, int) and not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        problems.append(Problem(path, f"expected a number of at most 64 bits, but got one of {value.bit_length()}"))
    elif value is not None and not isinstance(value, str | int | float | bool):
        problems.append(Problem(path, f"expected a plain value, but got a {type(value).__name__}"))
    return value


def _parse_domains(value: Any, path: Path, problems: list[Problem]) -> Any:
    """The tree with a Domain object in place of each mapping that describes one, and None in place of a wrong one."""
    if path and is_domain(value):
        if path[0] in NOT_OF_A_TRIAL:
            problems.append(Problem(path, f"`{path[0]}` is the same for every trial: a domain is not allowed here"))
            return None
        try:
            return parse(_canonical_subset(value) if path == _SPACE else value)
        except ValueError as error:
            problems.append(Problem(path, str(error)))
            return None
    if isinstance(value, dict):
        return {key: _parse_domains(entry, (*path, key), problems) for key, entry in value.items()}
    if isinstance(value, list):
        return [_parse_domains(entry, (*path, index), problems) for index, entry in enumerate(value)]
    return value


def _canonical_subset(node: dict[str, Any]) -> dict[str, Any]:
    """A subset of functions by canonical names, which become names of parameters; `subset: basic` names a space."""
    items = node.get("subset")
    if isinstance(items, str):
        return {**node, "subset": list(name_validators.space(items))}
    if isinstance(items, list):
        return {**node, "subset": [name_validators.function(item) if isinstance(item, str) else item for item in items]}
    return node


def _typed_domains(tree: dict[str, Any], written: Mapping[Path, Path], problems: list[Problem]) -> dict[Path, Domain]:
    """The domains by path. A range between whole numbers becomes a range of floats if its field is a float."""
    domains = {}
    for path, domain in walk(tree):
        if not isinstance(domain, Domain):
            continue
        try:
            domains[path] = as_floats(domain) if _is_float(path, tree) else domain
        except DomainError as error:
            domains[path] = domain
            problems.append(Problem(written.get(path, path), str(error)))
    return domains


def _is_float(path: Path, tree: dict[str, Any]) -> bool:
    if field_at(path) is float:
        return True
    component = component_at(path)
    if component is None:
        return False
    holder: Any = tree
    for part in path[:-1]:
        holder = holder[part]
    name, option = holder.get("name"), str(path[-1])
    names = name.choices if isinstance(name, Choice) else (name,)
    return any(isinstance(each, str) and KINDS[component.kind].option_is_float(each, option) for each in names)


def _is_within(problem: Problem, path: Path) -> bool:
    return problem.path[: len(path)] == path


def _put_all(tree: dict[str, Any], values: Mapping[Path, Any]) -> dict[str, Any]:
    for path, value in values.items():
        tree = put(tree, path, value)
    return tree


def _check_extremes(
    template: dict[str, Any], domains: Mapping[Path, Domain], written: Mapping[Path, Path], mistakes: list[Problem]
) -> list[Problem]:
    """The problems of each domain, and those `mistakes` of the representative tree that no domain explains."""
    explained: dict[Path, Problem] = {}
    others: list[Problem] = []
    for path, domain in domains.items():
        place = written.get(path, path)
        for value in domain.extremes():
            _, found = validate(put(template, path, value), written)
            for problem in found:
                if _is_within(problem, place):
                    explained.setdefault(place, Problem(place, problem.message))
                elif problem not in mistakes:
                    others.append(Problem(problem.path, f"{problem.message} (with {dotted(place)}: {shown(value)})"))
    kept = [problem for problem in mistakes if not any(_is_within(problem, place) for place in explained)]
    return [*kept, *explained.values(), *others]


def _check_pairs(
    template: dict[str, Any], domains: Mapping[Path, Domain], written: Mapping[Path, Path]
) -> list[Problem]:
    """Problems of two domains that are each valid but contradict each other, as top_k up to 4 and subsets from 2.

    All other domains have their representatives, except that the search is as short as its domains allow.
    """
    problems = []
    bounds = {_EPOCHS: min, _WARMUP: max}
    shortest = {path: bound(domains[path].extremes()) for path, bound in bounds.items() if path in domains}
    for (one, first), (two, second) in itertools.combinations(domains.items(), 2):
        if one[:-1] != two[:-1] and not any({one[0], two[0]} <= sections for sections in _COMPARED_SECTIONS):
            continue
        for a, b in itertools.product(first.extremes(), second.extremes()):
            values = {**shortest, one: a, two: b}
            _, found = validate(_put_all(template, values), written)
            drawn = " and ".join(f"{dotted(path)}: {shown(value)}" for path, value in values.items())
            problems += [Problem(problem.path, f"{problem.message} (with {drawn})") for problem in found]
            if found:
                break
    return problems


def _check_grid(spec: TrialSpec, domains: Mapping[Path, Domain], written: Mapping[Path, Path]) -> list[Problem]:
    """Problems of domains without finitely many points, under the grid sampler."""
    if spec.outer.sampler != "grid":
        return []
    message = "the grid sampler needs finitely many values: add `points: n`, or give a `choice`"
    continuous = [path for path, domain in domains.items() if isinstance(domain, FloatRange) and domain.grid() is None]
    return [Problem(written.get(path, path), message) for path in continuous]


def _check_temperature(spec: TrialSpec, domains: Mapping[Path, Domain]) -> list[Problem]:
    """The problem of a temperature that no normaliser of the study uses."""
    choice = domains.get(_NORMALISER)
    normalisers = choice.choices if isinstance(choice, Choice) else (spec.search.normaliser,)
    searched = any(path[:2] == _TEMPERATURE for path in domains)
    if any(has_temperature(name) for name in normalisers) or (
        spec.search.temperature == Temperature() and not searched
    ):
        return []
    return [Problem(_TEMPERATURE, f"the normaliser {spec.search.normaliser!r} has no temperature")]
