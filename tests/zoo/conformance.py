"""What is checked for each model: with init="original" the supernet is the model, and no activation is missed."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import torch
from activation_calls import ActivationCall, Marker, log_activation_calls
from torch import Tensor, nn

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, SiteReport, Supernet, find_sites, relax
from nasact.surgery.install import install, without_hooks
from nasact.surgery.sites import plan_surgery

SPACE = ("relu", "tanh")
OPTIONS: dict[str, Any] = {"normaliser": "affine", "init": "original", "kernel": "reference"}
EXCITATIONS = ("SqueezeExcitation", "SqueezeExcite", "SEModule", "EffectiveSEModule", "EcaModule", "RegNetSELayer")
"""Names of classes, in all three libraries, that multiply channels by the result of a sigmoid or a hard sigmoid."""
Inputs = tuple[Tensor, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Findings:
    """What was found in a model.

    `report`: found by reading. `audited`: found with an example input. `excitations`: the number of its modules for
    squeeze and excitation, each of which has one gate. `calls`: the number of activation calls in one pass in train
    mode and one in eval mode. `unreached`: sites and gates that neither calls.
    """

    report: SiteReport
    audited: SiteReport
    excitations: int
    calls: int
    unreached: frozenset[str]


class Counts(Protocol):
    """What is known of a model beforehand; the fields as in ImageModel."""

    @property
    def sites(self) -> int | None: ...

    @property
    def other_gates(self) -> int: ...

    @property
    def unreached(self) -> int: ...

    @property
    def reclassified(self) -> int: ...


@dataclass(frozen=True)
class Pass:
    """All that one forward and backward pass leaves behind."""

    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor | None]
    buffers: Mapping[str, Tensor]
    attributes: Mapping[str, tuple[str, ...]]
    draws: tuple[Any, ...]


def perturb_constant_parameters(model: nn.Module) -> nn.Module:
    """Add noise to each parameter of equal values: zeros, as in heads and residual branches, would hide differences."""
    with torch.no_grad():
        for parameter in model.parameters():
            if bool((parameter == parameter.flatten()[:1]).all()):
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested outputs, by its path."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tensors(item, f"{name}.{index}")


def call(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """The tensors of the model's output; the generators of torch and of Python start from 0."""
    torch.manual_seed(0)
    random.seed(0)
    output = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    return dict(tensors(output))


def attribute_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The names of the attributes of each module."""
    return {name: tuple(vars(module)) for name, module in model.named_modules()}


def run(model: nn.Module, inputs: Inputs) -> Pass:
    """One forward and backward pass; the gradients are taken away from the parameters."""
    outputs = call(model, inputs)
    loss = torch.zeros(())
    for each in outputs.values():
        if each.requires_grad:
            loss = loss + (each.float() * torch.linspace(-1, 1, each.numel()).view_as(each)).sum()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = None
    return Pass(
        {name: each.detach() for name, each in outputs.items()},
        gradients,
        {name: buffer.clone() for name, buffer in model.named_buffers()},
        attribute_names(model),
        (torch.get_rng_state().tolist(), random.getstate()),
    )


def differences(expected: Pass, actual: Pass) -> Iterator[str]:
    """One line for each thing that is not exactly the same after two passes."""
    for what in ("outputs", "gradients", "buffers"):
        others = getattr(actual, what)
        for name, value in getattr(expected, what).items():
            module, _, leaf = name.rpartition(".")
            # the parameters of an activation module are part of its bank
            other = others.get(name, others.get(f"{module}.bank.original.{leaf}"))
            if value is None or other is None:
                if value is not other:
                    yield f"{what} {name}: {'missing' if other is None else 'unexpected'}"
            elif value.dtype != other.dtype or value.shape != other.shape:
                yield f"{what} {name}: {value.dtype} {tuple(value.shape)}, but {other.dtype} {tuple(other.shape)}"
            elif not torch.equal(value, other):
                error, size = (value.double() - other.double()).abs().max(), value.double().abs().max()
                yield f"{what} {name}: differs by up to {float(error):.1e}, of {float(size):.1e}"
    if len(actual.outputs) != len(expected.outputs):
        yield f"outputs: {len(expected.outputs)} tensors, but {len(actual.outputs)}"
    if actual.draws != expected.draws:
        yield "the random number generators are in different states"


def check_finding(model: nn.Module) -> SiteReport:
    """Find the sites of a model; finding them changes no parameter, buffer or attribute of it."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    names, classes = attribute_names(model), [type(module) for module in model.modules()]
    report = find_sites(model)
    assert [type(module) for module in model.modules()] == classes
    assert attribute_names(model) == names
    after = model.state_dict()
    assert list(after) == list(state)
    assert [name for name in state if not torch.equal(state[name], after[name])] == []
    return report


def relaxed(model: nn.Module, refusal: str | None) -> Supernet:
    """The supernet of a model; if `refusal` is given, only after relax has refused the model for a reason like it."""
    if refusal is None:
        return relax(model, SPACE, **OPTIONS)
    with pytest.raises(SurgeryError, match=refusal):
        relax(model, SPACE, **OPTIONS)
    return relax(model, SPACE, **OPTIONS, partial=True)


def check_equal(model: nn.Module, supernet: Supernet, inputs: Inputs) -> set[str]:
    """Compare one pass in train mode and one in eval mode; return the sites whose alphas never had a gradient."""
    mixtures = supernet.mixtures()
    paths = {id(module): path for path, module in supernet.model.named_modules()}
    still = set(mixtures)
    for training in (True, False):
        expected = run(model.train(training), inputs)
        assert all(bool(each.isfinite().all()) for each in expected.outputs.values() if each.is_floating_point())
        assert any(each is not None and bool((each != 0).any()) for each in expected.gradients.values())
        supernet.train(training)
        outcome = run(supernet.model, inputs)
        lines = list(differences(expected, outcome))
        mode = "train" if training else "eval"
        assert not lines, f"{len(lines)} differences in {mode} mode: " + "; ".join(lines[:8])
        for name in list(still):
            gradient = outcome.gradients[f"{paths[id(mixtures[name])]}.alpha"]
            if gradient is not None and bool((gradient != 0).any()):
                still.remove(name)
    return still


def check_movable(model: nn.Module, inputs: Inputs) -> None:
    """Other functions at the sites change the outputs."""
    model.eval()
    with torch.no_grad():
        expected = call(model, inputs)
        moved = call(Genotype.uniform(model, "softsign", partial=True).apply(model), inputs)
    assert any(not torch.equal(value, moved[name]) for name, value in expected.items())


def missed_calls(model: nn.Module, report: SiteReport, inputs: Inputs) -> tuple[int, list[ActivationCall], list[str]]:
    """The number of activation calls in two passes, those that nothing reported covers, and the unreached sites."""
    chosen = ("*", *(gate.name for gate in report.gates))
    plan = plan_surgery(deepcopy(model), include=chosen, partial=True)
    assert set(plan.sites) == {each.name for each in (*report.sites, *report.gates)}
    markers = {name: Marker(without_hooks(location.original)) for name, (_, location) in plan.sites.items()}
    marked = install(plan, markers)
    uncovered: list[ActivationCall] = []
    count = 0
    with torch.no_grad():
        for training in (True, False):
            with log_activation_calls(model) as log:
                call(model.train(training), inputs)
            count += len(log.calls)
            with log_activation_calls(marked) as log:
                for marker in markers.values():
                    marker.log = [log]
                call(marked.train(training), inputs)
            uncovered += log.calls
    missed = [each for each in uncovered if not any(_is_part(each.module, part.name) for part in report.unreachable)]
    return count, missed, [name for name, marker in markers.items() if marker.count == 0]


def check_example(model: nn.Module, report: SiteReport, unreached: Collection[str], inputs: Inputs) -> SiteReport:
    """With an example input, the sites are among those that a pass reaches, and the supernet is the model too."""
    audited = find_sites(model, example_input=inputs)
    known = {site.name for site in (*report.sites, *report.gates)}
    sites = {site.name for site in audited.sites}
    assert sites <= {site.name for site in report.sites} - set(unreached)
    assert {gate.name for gate in audited.gates} | sites == known
    assert {each.name for each in audited.unreachable} >= {each.name for each in report.unreachable}
    supernet = relax(model, SPACE, **OPTIONS, example_input=inputs, partial=True).eval()
    assert set(supernet.mixtures()) == sites
    with torch.no_grad():
        expected, outputs = call(model.eval(), inputs), call(supernet, inputs)
    assert all(torch.equal(value, outputs[name]) for name, value in expected.items())
    return audited


def _is_part(module: str, name: str) -> bool:
    return name in ("", "root", module) or module.startswith(f"{name}.")


def check_conformance(model: nn.Module, inputs: Inputs, refusal: str | None = None) -> Findings:
    """All checks of one model. `refusal`: a pattern of the reason for which relax must refuse it unless `partial`."""
    model = perturb_constant_parameters(model)
    report = check_finding(model)
    still = check_equal(model, relaxed(model, refusal), inputs)
    check_movable(model, inputs)
    calls, missed, unreached = missed_calls(model, report, inputs)
    assert missed == [], f"{len(missed)} of {calls} activation calls are no site and not reported: {missed[:8]}"
    assert still <= set(unreached), f"sites whose function does not matter: {sorted(still - set(unreached))}"
    audited = check_example(model, report, unreached, inputs)
    excitations = sum(type(module).__name__ in EXCITATIONS for module in model.modules())
    return Findings(report, audited, excitations, calls, frozenset(unreached))


def check_counts(found: Findings, expected: Counts) -> None:
    """The numbers of sites, of gates that are called, and of sites that are not called are as expected."""
    sites = [site.name for site in found.report.sites]
    gates = [gate.name for gate in found.report.gates if gate.role == "gate" and gate.name not in found.unreached]
    assert expected.sites in (None, len(sites)), sites
    assert len(gates) == found.excitations + expected.other_gates, gates
    reclassified = {gate.name for gate in found.audited.gates}.intersection(sites) - found.unreached
    assert len(reclassified) == expected.reclassified, reclassified
    assert len(found.unreached.intersection(sites)) == expected.unreached, found.unreached.intersection(sites)
