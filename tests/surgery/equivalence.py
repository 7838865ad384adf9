"""Cases (a model and what surgery must make of it), and the claims that every case is tested by.

A claim runs the model and its supernet side by side and compares everything that a user can observe.
"""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from observed_state import differences, frozen, gradients, module_differences, snapshot, variables
from softsign_oracle import SoftsignEverywhere
from torch import Tensor, nn

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, Supernet, find_sites, relax
from nasact.surgery import Site, SiteReport

LOG: list[Any] = []
"""What models and hooks report; emptied before each run, compared after it."""

Verdict = Literal["equal", "refused", "either"]
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Net(nn.Module):
    """Two linear layers of width 6: the base of most cases, which only write a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)


def batch(index: int, *shape: int) -> Tensor:
    """The input of call `index`; its mean changes its sign from call to call."""
    generator = torch.Generator().manual_seed(index)
    return torch.randn(shape or (4, 6), generator=generator) + (1.0, -1.0, 0.25)[index % 3]


def one_tensor(index: int) -> Call:
    return (batch(index),), {}


@dataclass(frozen=True)
class Case:
    """A model, and what surgery must make of it.

    `sites`: the functions of its sites in order; several tuples: each is right; none: not stated.
    `gates`: the functions of its gates, of its outputs and of those that take parameters.
    `verdict`: "equal": the supernet is the model. "refused": SurgeryError that matches `reason`. "either": one of both.
    `inputs`: arguments of call `index`. `schedule`: what the training loop changes before call `index`.
    `observe`, `reset`: state outside of the model. `raises`: a call may raise, then the supernet must raise the same.
    `moves`: other functions at the sites can be predicted by intercepting torch's functions.
    `learns`: every alpha gets a gradient. `after_a_pass`: the model can be copied after it has run.
    `backward`: the model itself can be trained; else it runs without gradients.
    `tolerance`: of numbers, for activations whose formula in the model is not the catalogue's; 0: exactly.
    """

    name: str
    make: Callable[[], nn.Module]
    sites: tuple[tuple[str, ...], ...]
    gates: tuple[str, ...] = ()
    verdict: Verdict = "equal"
    reason: str = ""
    inputs: Callable[[int], Call] = one_tensor
    schedule: Callable[[Any, int], None] | None = None
    observe: Callable[[], Any] = lambda: None
    reset: Callable[[], None] = lambda: None
    raises: bool = False
    moves: bool = True
    learns: bool = True
    after_a_pass: bool = True
    backward: bool = True
    tolerance: float = 0.0

    def __str__(self) -> str:
        return self.name

    def build(self) -> nn.Module:
        """The model, with the same weights each time."""
        seed_everything()
        self.reset()
        LOG.clear()
        return self.make()


@dataclass
class Table:
    """Collects cases: `@TABLE("relu", "tanh")` above a class of a model without arguments."""

    cases: dict[str, Case] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], nn.Module], *functions: str, **options: Any) -> None:
        """A case whose sites apply `functions`; or `sites=` with each list of functions that is right."""
        assert name not in self.cases, name
        sites = options.pop("sites", (functions,))
        self.cases[name] = Case(name, make, tuple(sites), **options)

    def __call__(self, *functions: str, **options: Any) -> Callable[[Any], Any]:
        def register(kind: Any) -> Any:
            make = options.pop("make", lambda kind: kind())
            self.add(kind.__name__, lambda: make(kind), *functions, **options)
            return kind

        return register

    def parametrize(self) -> Any:
        return pytest.mark.parametrize("case", list(self.cases.values()), ids=str)


_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)
_numbers = itertools.count()
_HEADER = """
import contextlib, functools, math, random
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from equivalence import LOG, Net
"""


@cache
def written(text: str, header: str = _HEADER) -> ModuleType:
    """Import a source text as a file of its own: for spellings that the linter of this repository would correct."""
    name = f"written_{next(_numbers)}"
    path = Path(_FOLDER.name, f"{name}.py")
    path.write_text(f"{header}\n{text}\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def seed_everything() -> None:
    torch.manual_seed(0)
    random.seed(0)
    vars(np.random)["seed"](0)  # the legacy generator: models of other people draw from it


def random_states() -> list[Any]:
    legacy = vars(np.random)["get_state"]()
    return [torch.get_rng_state(), random.getstate(), legacy[1].tolist(), legacy[2]]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _tensors(vars(value))


def _with_leaves(value: Any, leaves: list[Tensor]) -> Any:
    """`value` with each floating point tensor as a copy of a leaf, so that it may be overwritten and has a gradient."""
    if isinstance(value, Tensor) and value.is_floating_point():
        leaves.append(value.clone().requires_grad_())
        return leaves[-1].clone()
    if isinstance(value, dict):
        return {key: _with_leaves(each, leaves) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_with_leaves(each, leaves) for each in value)
    return value


def _loss(output: Any) -> Tensor | None:
    """A loss with another slope for every element of every tensor of the output that has a gradient."""
    terms = [
        (t.double() * torch.cos(torch.arange(t.numel(), dtype=torch.float64)).view(t.shape)).sum()
        for t in _tensors(output)
        if t.requires_grad and t.is_floating_point()
    ]
    return sum(terms, torch.zeros((), dtype=torch.float64)) if terms else None


def run(case: Case, called: nn.Module, model: nn.Module, training: bool, calls: int = 3) -> list[dict[str, Any]]:
    """What can be observed of `calls` calls of `called`, the model or its supernet; `model`: the model in it."""
    seed_everything()
    LOG.clear()
    case.reset()
    called.train(training)
    called.zero_grad()
    records = []
    for index in range(calls):
        if case.schedule is not None:
            case.schedule(model, index)
        leaves: list[Tensor] = []
        arguments, keywords = _with_leaves(case.inputs(index), leaves)
        try:
            with torch.set_grad_enabled(case.backward):
                output = called(*arguments, **keywords)
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if not case.raises:
                raise
            output = f"{type(error).__name__}: {error}"
        given = list(_tensors((arguments, keywords)))
        loss = _loss(output)
        shown = frozen(output)  # before the backward pass, in which hooks may run
        if loss is not None:
            loss.backward()
        records.append(
            {
                "output": shown,
                "output is an input": [any(out is x for x in given) for out in _tensors(output)],
                "arguments afterwards": frozen((arguments, keywords)),
                "gradients of the arguments": [frozen(leaf.grad) for leaf in leaves],
                "gradients": gradients(model),
                "log": frozen(list(LOG)),
                "random states": random_states(),
                "outside": frozen(case.observe()),
            }
        )
    return records


def agree(found: Iterable[str]) -> None:
    """Fail with the first differences, if there are any."""
    texts = list(found)
    assert not texts, "\n".join(texts[:6])


def expect_refusal(case: Case, refusal: SurgeryError) -> None:
    """Fail unless the case may be refused, and the refusal is one line that names the reason."""
    text = str(refusal)
    assert case.verdict != "equal", f"refused: {text}"
    assert re.search(case.reason, text), f"{text!r} does not match {case.reason!r}"
    assert "\n" not in text, "the refusal has more than one line"


def make_supernet(case: Case, model: nn.Module) -> Supernet | None:
    """The supernet that must be the model; None if the case may be refused, and nothing is left to search."""
    options: dict[str, Any] = {"normaliser": "affine", "init": "original", "kernel": "reference"}
    try:
        supernet = relax(model, ["relu", "tanh"], **options)
    except SurgeryError as refusal:
        expect_refusal(case, refusal)
        try:
            return relax(model, ["relu", "tanh"], partial=True, **options)
        except SurgeryError:
            return None
    assert case.verdict != "refused", f"not refused; sites {[site.name for site in supernet.sites]}"
    return supernet


def _compare(case: Case, model: nn.Module, supernet: Supernet) -> None:
    added = {id(module): keys for module, keys in variables(supernet.model, model)}
    for training in (True, False):
        want = run(case, model, model, training)
        got = run(case, supernet, supernet.model, training)
        mode = "train" if training else "eval"
        agree(differences(got, want, mode, case.tolerance))
        agree(module_differences(supernet.model, model, f"{mode}: model", added, case.tolerance))


def the_supernet_starts_as_the_model(case: Case) -> None:
    model = case.build()
    supernet = make_supernet(case, model)
    if supernet is not None:
        _compare(case, model, supernet)


def the_supernet_of_a_model_that_has_run_continues_as_it(case: Case) -> None:
    if not case.after_a_pass:
        return
    model = case.build()
    run(case, model, model, training=True, calls=2)
    supernet = make_supernet(case, model)
    if supernet is not None:
        _compare(case, model, supernet)


def _report(case: Case, model: nn.Module) -> SiteReport | None:
    """What `find_sites` reports; None if it may refuse the model, and does so with the reason."""
    try:
        return find_sites(model)
    except SurgeryError as refusal:
        expect_refusal(case, refusal)
        return None


def its_sites_and_gates_are_named(case: Case) -> None:
    report = _report(case, case.build())
    if not case.sites or report is None or (case.verdict == "either" and report.unreachable):
        return
    found = tuple(site.function for site in report.sites)
    assert found in case.sites, f"sites {[(s.name, s.function) for s in report.sites]}, gates {report.gates}"
    gates = sorted(site.function for site in report.gates if site.role != "unused")
    assert gates == sorted(case.gates), f"gates {report.gates}"
    assert all(gate.reason for gate in report.gates), f"no reason: {report.gates}"
    for site in report.sites:
        assert (site.role, site.reason) == ("activation", ""), site
    names = [site.name for site in (*report.sites, *report.gates)]
    assert len(set(names)) == len(names), names
    assert bool(report.unreachable) == (case.verdict == "refused"), f"unreachable {report.unreachable}"


def surgery_leaves_the_model_alone(case: Case) -> None:
    model = case.build()
    before, states = snapshot(model), random_states()
    _report(case, model)
    agree(differences(snapshot(model), before, "find_sites"))
    supernet = make_supernet(case, model)
    agree(differences(snapshot(model), before, "relax"))
    agree(differences(random_states(), states, "random state"))
    assert LOG == [], f"the model's code was run: {LOG}"
    if supernet is not None:
        run(case, supernet, supernet.model, training=True)
        agree(differences(snapshot(model), before, "a pass of the supernet"))


def _is_searched(case: Case, model: nn.Module) -> bool:
    if case.verdict == "either":
        report = _report(case, model)
        return report is not None and not report.unreachable
    return case.verdict == "equal"


def other_functions_act_at_the_sites(case: Case) -> None:
    if not case.moves or not _is_searched(case, case.build()):
        return
    kept = tuple(set(case.gates) - set(case.sites[0])) if case.sites else ()
    changed: list[str] = []
    for training in (True, False):
        unchanged, expected, model = case.build(), case.build(), case.build()
        net = Genotype.uniform(model, "softsign").apply(model)
        plain = run(case, unchanged, unchanged, training)
        with SoftsignEverywhere(kept):
            want = run(case, expected, expected, training)
        got = run(case, net, net, training)
        for key in ("output", "arguments afterwards", "random states"):
            agree(differences([r[key] for r in got], [r[key] for r in want], key))
        changed += differences([r["output"] for r in got], [r["output"] for r in plain], "output")
    assert changed, "softsign at every site changes nothing"


def every_alpha_has_a_gradient(case: Case) -> None:
    model = case.build()
    if not (case.learns and case.backward and case.sites) or not _is_searched(case, model):
        return
    supernet = relax(model, ["relu", "tanh", "sin"], kernel="reference")
    run(case, supernet, supernet.model, training=True)
    for name, mixture in supernet.mixtures().items():
        assert mixture.alpha.grad is not None, f"alpha of {name!r} has no gradient"
        assert bool((mixture.alpha.grad != 0).any()), f"alpha of {name!r} has the gradient 0"
    assert len(supernet.mixtures()) in {len(functions) for functions in case.sites}, list(supernet.mixtures())


def found_gates(model: nn.Module) -> list[Site]:
    """The gates of a model, without the modules that it does not use."""
    return [gate for gate in find_sites(model).gates if gate.role != "unused"]


def assert_roles(table: Table, role: str, at_least: int) -> None:
    """Each gate of the table's models has the role, and a reason of one line."""
    gates = [(case.name, gate) for case in table.cases.values() for gate in found_gates(case.build())]
    assert len(gates) >= at_least, f"{len(gates)} gates"
    agree(f"{name}: {gate.name!r} is called a {gate.role}" for name, gate in gates if gate.role != role)
    agree(f"{name}: reason {gate.reason!r}" for name, gate in gates if not gate.reason or "\n" in gate.reason)


CLAIMS = (
    the_supernet_starts_as_the_model,
    the_supernet_of_a_model_that_has_run_continues_as_it,
    its_sites_and_gates_are_named,
    surgery_leaves_the_model_alone,
    other_functions_act_at_the_sites,
    every_alpha_has_a_gradient,
)
claims = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
