"""The Study: the input of `nasact search`, as one strict tree whose scalars may be search domains.

`Study.load` reads YAML by name or path, `Study.from_tree` a tree from Python or JSON; `fill` turns a sampler's values
into the TrialSpec of one trial. Knows no sampler, no training, no tracking.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nasact.errors import StudyError, did_you_mean
from nasact.resources import shipped, shipped_names
from nasact.study.domains import Choice, Domain, Parameter, Scalar, Subset, is_domain, put
from nasact.study.problems import Problem, shown, study_error
from nasact.study.renamed_keys import rename_old_keys
from nasact.study.resolve import resolve, validate
from nasact.study.shorthand import Path as TreePath
from nasact.study.source import Source, dotted, read_file, read_text, write_text
from nasact.study.spec import TrialSpec, canonical_json

logger = logging.getLogger(__name__)

# Keys whose values may change when a study is continued under its name: trials that were run keep their meaning.
MUTABLE_KEYS: tuple[TreePath, ...] = (("outer", "trials"), ("compare", "seeds"), ("compare", "baselines"))

FLAG = Choice((True, False))

_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Study:
    """A valid study: its names are known and its domains are within the bounds of their fields.

    `spec` has a representative in place of every domain. `parameters` are what a sampler samples, by dotted path; a
    subset of functions is one true/false parameter per function (`search_space.relu`). `tree` is the resolved study:
    plain types, every default filled in.
    """

    spec: TrialSpec
    parameters: dict[str, Parameter]
    tree: dict[str, Any]
    domains: tuple[tuple[TreePath, Domain], ...] = field(default=(), compare=False, repr=False)
    source: Source | None = field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> Study:
        """A shipped study by its name, or any by a path (with a slash, or ending in .yaml or .yml).

        A study without a `name` that is read from a path gets the name of its file.
        """
        text = os.fspath(name_or_path)
        if not (isinstance(name_or_path, Path) or "/" in text or os.sep in text or text.endswith((".yaml", ".yml"))):
            known = shipped_names("studies")
            if text not in known:
                hint = did_you_mean(text, known) or " A study of your own is given as a path: './mine.yaml'."
                raise StudyError(f"unknown study {text!r}.{hint} (nasact list studies)")
            text = str(shipped("studies") / f"{text}.yaml")
        path = Path(text)
        tree, source = read_file(path, text)
        if "name" not in tree and _STEM.fullmatch(path.stem):
            tree["name"] = path.stem
        return cls.from_tree(tree, source)

    @classmethod
    def from_yaml(cls, text: str, label: str = "study") -> Study:
        """A study from YAML text; `label` is the name of the file in messages."""
        return cls.from_tree(*read_text(text, label))

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], source: Source | None = None) -> Study:
        """A study from a tree of plain values, or a StudyError with a line for each mistake.

        An old name of a key is accepted and logged as a warning of one line (`renamed_keys`).
        """
        tree, source, messages = rename_old_keys(tree, source)
        for message in messages:
            logger.warning(message)
        resolved = resolve(tree, source)
        parameters = dict(item for path, domain in resolved.domains for item in _parameters(path, domain).items())
        return cls(resolved.spec, parameters, resolved.tree, resolved.domains, source)

    @property
    def name(self) -> str:
        return self.spec.name

    def to_yaml(self) -> str:
        """The resolved study as YAML; reading it gives an equal study."""
        return write_text(self.tree)

    def fill(self, params: Mapping[str, Any]) -> TrialSpec:
        """The spec of the trial with these values, one for every parameter.

        If a subset has fewer functions switched on than its `min`, the first functions that are off are switched on.
        """
        problems = [
            Problem((name,), f"unknown parameter.{did_you_mean(name, self.parameters)}")
            for name in params
            if name not in self.parameters
        ]
        for name, parameter in self.parameters.items():
            if name not in params:
                problems.append(Problem((name,), "no value for this parameter"))
            elif not parameter.contains(params[name]):
                problems.append(Problem((name,), f"{shown(params[name])} is not within {shown(parameter.node())}"))
        if problems:
            raise study_error(problems)
        tree = self.tree
        for path, domain in self.domains:
            tree = put(tree, path, _value(path, domain, params))
        spec, problems = validate(tree)
        if spec is None:
            raise study_error(problems)
        return spec

    def fingerprint(self) -> str:
        """Equal for studies that differ in MUTABLE_KEYS only: their trials can be compared."""
        return hashlib.sha256(canonical_json(_without_mutable_keys(self.tree)).encode()).hexdigest()

    def differences(self, other_tree: Mapping[str, Any]) -> list[str]:
        """The differences from an older tree to this study, one line each: `search.epochs: 20 -> 30`."""
        other_tree, _, _ = rename_old_keys(other_tree)
        old, new = (
            dict(_leaf_values(_without_mutable_keys(other_tree))),
            dict(_leaf_values(_without_mutable_keys(self.tree))),
        )
        paths = dict.fromkeys((*old, *new))
        return [
            f"{dotted(path)}: {_leaf_text(old, path)} -> {_leaf_text(new, path)}"
            for path in paths
            if canonical_json(old.get(path)) != canonical_json(new.get(path)) or (path in old) != (path in new)
        ]


def _parameters(path: TreePath, domain: Domain) -> dict[str, Parameter]:
    if isinstance(domain, Subset):
        return {_flag(path, item): FLAG for item in domain.items}
    return {dotted(path): domain}


def _value(path: TreePath, domain: Domain, params: Mapping[str, Any]) -> Any:
    if isinstance(domain, Subset):
        return domain.selected({index for index, item in enumerate(domain.items) if params[_flag(path, item)]})
    return params[dotted(path)]


def _flag(path: TreePath, item: Scalar) -> str:
    return f"{dotted(path)}.{item}"


def _without_mutable_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without the keys that may change between two runs of one study."""
    return {
        section: {key: value for key, value in held.items() if (section, key) not in MUTABLE_KEYS}
        if isinstance(held, dict)
        else held
        for section, held in tree.items()
    }


def _leaf_values(tree: Mapping[str, Any], path: TreePath = ()) -> list[tuple[TreePath, Any]]:
    """Values by path; a list and a domain are values."""
    leaves: list[tuple[TreePath, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and not is_domain(value):
            leaves += _leaf_values(value, (*path, key))
        else:
            leaves.append(((*path, key), value))
    return leaves


def _leaf_text(leaves: Mapping[TreePath, Any], path: TreePath) -> str:
    return shown(leaves[path], width=200) if path in leaves else "not given"
