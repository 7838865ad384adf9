"""A raw tree -> its domains, a representative TrialSpec, the tree in full form; or every mistake, with its place.

Whether a domain fits its field is asked of the field: the representative and each end (or choice) are validated in its
place, and every pair of ends of domains that bear on each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from nasact.kinds import KINDS
from nasact.study import defaults, name_validators
from nasact.study.domains import Choice, Domain, DomainError, FloatRange, as_floats, is_domain, parse, put, walk
from nasact.study.fields import component_at, field_at, short_forms
from nasact.study.problems import Problem, shown, study_error, translate
from nasact.study.sections import Temperature
from nasact.study.shorthand import Path, expand
from nasact.study.source import Source, dotted
from nasact.study.spec import NOT_OF_A_TRIAL, TrialSpec

_SPACE: Path = ("search_space",)
_NORMALISER: Path = ("search", "normaliser")
_TEMPERATURE: Path = ("search", "temperature")
_EPOCHS: Path = ("search", "epochs")
_WARMUP: Path = ("search", "warmup")
_TOGETHER = ({"search_space", "derive"}, {"search", "derive"})
_LARGEST = 2**63


@dataclass(frozen=True)
class Resolved:
    """What a tree means: `tree` has every default, and the domains (in `tree`'s order) as the user gave them."""

    spec: TrialSpec
    domains: tuple[tuple[Path, Domain], ...]
    tree: dict[str, Any]


def resolve(raw: Mapping[str, Any], source: Source | None = None) -> Resolved:
    """Understand a tree, or raise a StudyError with one line for each mistake."""
    problems: list[Problem] = []
    tree = _plain(raw, (), problems)
    if not isinstance(tree, dict):
        raise study_error(problems or [Problem((), f"a study is a mapping, but got {shown(raw)}")], source)
    tree = _with_domains(tree, (), problems)
    rules = {path: (str(node.shorthand_key), node.full_form) for path, node in short_forms().items()}
    tree, written = expand(tree, rules)
    domains = _typed(tree, written, problems)
    template = _fill(tree, {path: domain.representative() for path, domain in domains.items()})
    spec, mistakes = validated(template, written)
    mistakes = [mistake for mistake in mistakes if not any(_within(mistake, broken.path) for broken in problems)]
    problems += _at_the_ends(template, domains, written, mistakes)
    if spec is None or problems:
        raise study_error(problems, source)
    problems += _in_pairs(template, domains, written) + _grid(spec, domains, written) + _idle(spec, domains)
    if problems:
        raise study_error(problems, source)
    return _resolved(spec, domains)


def validated(
    tree: dict[str, Any], written: Mapping[Path, Path] | None = None
) -> tuple[TrialSpec | None, list[Problem]]:
    """The spec of a tree without domains, or what is wrong with it."""
    try:
        return TrialSpec.model_validate(tree), []
    except ValidationError as error:
        return None, translate(error, written)


def _resolved(spec: TrialSpec, domains: Mapping[Path, Domain]) -> Resolved:
    tree = _fill(spec.to_tree(), domains)
    ordered = tuple((path, value) for path, value in walk(tree) if isinstance(value, Domain))
    return Resolved(spec, ordered, _fill(tree, {path: domain.node() for path, domain in ordered}))


def _plain(value: Any, path: Path, problems: list[Problem]) -> Any:
    """Only what YAML and JSON can hold: a tuple becomes a list, a number that is not finite is refused."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                problems.append(Problem(path, f"a key is a word, but got {shown(key)}"))
        return {str(key): _plain(entry, (*path, str(key)), problems) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, (*path, index), problems) for index, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(path, f"expected a finite number, but got {value}"))
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        problems.append(Problem(path, f"expected a number of at most 64 bits, but got one of {value.bit_length()}"))
    elif value is not None and not isinstance(value, str | int | float | bool):
        problems.append(Problem(path, f"expected a plain value, but got a {type(value).__name__}"))
    return value


def _with_domains(value: Any, path: Path, problems: list[Problem]) -> Any:
    """The tree with a Domain object wherever a mapping describes one, and nothing where it fails to."""
    if path and is_domain(value):
        if path[0] in NOT_OF_A_TRIAL:
            problems.append(Problem(path, f"`{path[0]}` is the same for every trial: a domain cannot stand here"))
            return None
        try:
            return parse(_named_subset(value) if path == _SPACE else value)
        except ValueError as error:
            problems.append(Problem(path, str(error)))
            return None
    if isinstance(value, dict):
        return {key: _with_domains(entry, (*path, key), problems) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_domains(entry, (*path, index), problems) for index, entry in enumerate(value)]
    return value


def _named_subset(node: dict[str, Any]) -> dict[str, Any]:
    """A subset of functions by canonical names, which name the parameters; `subset: basic` is of a whole space."""
    items = node.get("subset")
    if isinstance(items, str):
        return {**node, "subset": list(name_validators.space(items))}
    if isinstance(items, list):
        return {**node, "subset": [name_validators.function(item) if isinstance(item, str) else item for item in items]}
    return node


def _typed(tree: dict[str, Any], written: Mapping[Path, Path], problems: list[Problem]) -> dict[Path, Domain]:
    """The domains by path. A range between whole numbers is one of floats where the field it fills is a float."""
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


def _within(problem: Problem, path: Path) -> bool:
    return problem.path[: len(path)] == path


def _fill(tree: dict[str, Any], values: Mapping[Path, Any]) -> dict[str, Any]:
    for path, value in values.items():
        tree = put(tree, path, value)
    return tree


def _at_the_ends(
    template: dict[str, Any], domains: Mapping[Path, Domain], written: Mapping[Path, Path], mistakes: list[Problem]
) -> list[Problem]:
    """What is wrong with each domain; and the `mistakes` of the representative tree that no domain explains."""
    explained: dict[Path, Problem] = {}
    others: list[Problem] = []
    for path, domain in domains.items():
        place = written.get(path, path)
        for value in domain.extremes():
            _, found = validated(put(template, path, value), written)
            for problem in found:
                if _within(problem, place):
                    explained.setdefault(place, Problem(place, problem.message))
                elif problem not in mistakes:
                    others.append(Problem(problem.path, f"{problem.message} (with {dotted(place)}: {shown(value)})"))
    kept = [problem for problem in mistakes if not any(_within(problem, place) for place in explained)]
    return [*kept, *explained.values(), *others]


def _in_pairs(template: dict[str, Any], domains: Mapping[Path, Domain], written: Mapping[Path, Path]) -> list[Problem]:
    """Two domains that are each right may contradict each other: top_k up to 4, and subsets from 2.

    All others are at their representatives, but the search is as short as they let it be.
    """
    problems = []
    bounds = {_EPOCHS: min, _WARMUP: max}
    shortest = {path: bound(domains[path].extremes()) for path, bound in bounds.items() if path in domains}
    for (one, first), (two, second) in itertools.combinations(domains.items(), 2):
        if one[:-1] != two[:-1] and not any({one[0], two[0]} <= sections for sections in _TOGETHER):
            continue
        for a, b in itertools.product(first.extremes(), second.extremes()):
            values = {**shortest, one: a, two: b}
            _, found = validated(_fill(template, values), written)
            drawn = " and ".join(f"{dotted(path)}: {shown(value)}" for path, value in values.items())
            problems += [Problem(problem.path, f"{problem.message} (with {drawn})") for problem in found]
            if found:
                break
    return problems


def _grid(spec: TrialSpec, domains: Mapping[Path, Domain], written: Mapping[Path, Path]) -> list[Problem]:
    """A grid has finitely many points."""
    if spec.outer.sampler != "grid":
        return []
    message = "the grid sampler needs finitely many values: add `points: n`, or give a `choice`"
    endless = [path for path, domain in domains.items() if isinstance(domain, FloatRange) and domain.grid() is None]
    return [Problem(written.get(path, path), message) for path in endless]


def _idle(spec: TrialSpec, domains: Mapping[Path, Domain]) -> list[Problem]:
    """A temperature that no normaliser of the study looks at would be accepted in silence, and do nothing."""
    choice = domains.get(_NORMALISER)
    normalisers = choice.choices if isinstance(choice, Choice) else (spec.search.normaliser,)
    searched = any(path[:2] == _TEMPERATURE for path in domains)
    if defaults.has_temperature(str(name) for name in normalisers) or (
        spec.search.temperature == Temperature() and not searched
    ):
        return []
    return [Problem(_TEMPERATURE, f"the normaliser {spec.search.normaliser!r} has no temperature")]
