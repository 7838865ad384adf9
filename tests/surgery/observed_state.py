"""The state of models and results as values that can be compared, and how two of them differ."""

from __future__ import annotations

import random
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nasact.mixture import Mixture


@dataclass(frozen=True, eq=False)
class FrozenTensor:
    """A tensor as it was at one time."""

    value: Tensor
    requires_grad: bool
    parameter: bool

    def __repr__(self) -> str:
        return f"{self.value.dtype} {tuple(self.value.shape)} {self.value.flatten()[:4].tolist()}"


@dataclass(frozen=True)
class Named:
    """A value of another kind: compared by the name of its type and of itself."""

    kind: str
    name: str


def frozen(value: Any) -> Any:
    """A copy of `value` in which later changes of tensors and containers do not show."""
    if isinstance(value, Tensor):
        return FrozenTensor(value.detach().clone(), value.requires_grad, isinstance(value, nn.Parameter))
    if isinstance(value, Mapping):
        return Named(type(value).__name__, ""), [(frozen(k), frozen(v)) for k, v in list(value.items())]
    if isinstance(value, list | tuple):
        return Named(type(value).__name__, ""), [frozen(each) for each in value]
    if isinstance(value, set | frozenset):
        return Named(type(value).__name__, ""), sorted(map(repr, value))
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist()
    if isinstance(value, random.Random):
        return "Random", value.getstate()
    if isinstance(value, torch.Generator):
        return "Generator", frozen(value.get_state())
    if isinstance(value, nn.Module):
        return Named("module", type(value).__name__)
    if isinstance(value, types.MethodType):
        return Named("method", value.__name__)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return Named(type(value).__name__, ""), frozen(vars(value))
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    named = isinstance(value, type | types.FunctionType | types.BuiltinFunctionType)
    return Named(type(value).__name__, value.__qualname__ if named else "")


def differences(got: Any, want: Any, where: str, tolerance: float = 0.0) -> Iterator[str]:
    """Each difference of two frozen values, with its place; numbers of tensors may differ by the tolerance."""
    if isinstance(want, FrozenTensor) and isinstance(got, FrozenTensor):
        a, b = got.value, want.value
        facts = [(t.dtype, t.shape, t.device, f.requires_grad, f.parameter) for t, f in ((a, got), (b, want))]
        if facts[0] != facts[1]:
            yield f"{where}: got {facts[0]}, expected {facts[1]}"
        elif not torch.equal(a, b) and not torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
            yield f"{where}: got {got}, expected {want}, largest difference {(a.double() - b.double()).abs().max():.3g}"
    elif isinstance(want, Tensor) and isinstance(got, Tensor):
        if not torch.equal(got, want):
            yield f"{where}: other tensors"
    elif isinstance(want, dict) and isinstance(got, dict):
        if list(got) != list(want):
            yield f"{where}: got {sorted(set(got) - set(want))} more, lacks {sorted(set(want) - set(got))}"
        for key in want.keys() & got.keys():
            yield from differences(got[key], want[key], f"{where}.{key}", tolerance)
    elif isinstance(want, list | tuple) and isinstance(got, list | tuple):
        if len(got) != len(want):
            yield f"{where}: got {len(got)} values, expected {len(want)}"
        for index, (a, b) in enumerate(zip(got, want, strict=False)):
            yield from differences(a, b, f"{where}[{index}]", tolerance)
    elif type(got) is not type(want) or (got != want and not (got != got and want != want)):
        yield f"{where}: got {str(got)[:80]}, expected {str(want)[:80]}"


def _is_site(module: nn.Module) -> bool:
    return type(module).__module__.startswith("nasact.")


def _pairs(got: nn.Module, want: nn.Module, seen: set[int]) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Each module of `want` with its counterpart in `got`, without what surgery has put at the sites."""
    if id(want) in seen or _is_site(got):
        return
    seen.add(id(want))
    yield got, want
    for name, child in want._modules.items():
        other = got._modules.get(name)
        if child is not None and other is not None:
            yield from _pairs(other, child, seen)


def variables(got: nn.Module, want: nn.Module) -> list[tuple[nn.Module, set[str]]]:
    """For each module of a supernet, the names of the attributes that surgery has added to it."""
    return [(a, set(vars(a)) - set(vars(b))) for a, b in _pairs(got, want, set())]


def gradients(model: nn.Module) -> dict[str, Any]:
    """Gradients by parameter name: without those of mixtures, with the names that a site's parameters had before."""
    sites = [module for module in model.modules() if isinstance(module, Mixture)]
    added = {id(parameter) for site in sites for parameter in (site.alpha, *site.bank.betas.values())}
    named = [(name, parameter) for name, parameter in model.named_parameters() if id(parameter) not in added]
    return {name.replace(".bank.original.", "."): frozen(parameter.grad) for name, parameter in named}


def module_differences(
    got: nn.Module, want: nn.Module, where: str, added: Mapping[int, set[str]], tolerance: float
) -> Iterator[str]:
    """Each difference between the attributes, parameters, buffers and children of a supernet and of its model."""
    for a, b in _pairs(got, want, set()):
        place = f"{where} {type(b).__name__}"
        if not isinstance(a, type(b)):
            yield f"{place}: got a {type(a).__name__}"
        ours, theirs = dict(vars(a)), dict(vars(b))
        for key in added.get(id(a), set()):
            ours.pop(key, None)
        # an attribute that holds an activation becomes a child; a forward on the instance may become its class's
        moved = [key for key in theirs if key not in ours and (key in a._modules or key == "forward")]
        for key in (*moved, "activation_relu_or_gelu"):
            theirs.pop(key, None)
            ours.pop(key, None)
        ours_children, their_children = ours.pop("_modules"), theirs.pop("_modules")
        for key in sorted(ours.keys() ^ theirs.keys()):
            yield f"{place}: attribute {key!r} is only in the {'supernet' if key in ours else 'model'}"
        for key in sorted(ours.keys() & theirs.keys()):
            yield from differences(frozen(ours[key]), frozen(theirs[key]), f"{place}.{key}", tolerance)
        if [name for name in ours_children if name in their_children] != list(their_children):
            yield f"{place}: children {list(ours_children)}, expected {list(their_children)}"


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that a model holds: identities, values, versions of tensors, classes and what the classes hold."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        kind = type(module)
        held = {key: id(value) for key, value in vars(kind).items() if key != "__slotnames__"}  # copyreg's own cache
        found[f"{path} class"] = (id(kind), kind.__qualname__, sorted(held.items()))
        for key, value in vars(module).items():
            found[f"{path}.{key}"] = (id(value), frozen(value))
            if key in ("_parameters", "_buffers", "_modules"):
                found[f"{path}.{key} ids"] = [(name, id(each)) for name, each in value.items()]
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and not tensor.is_inference():
                found[f"{path}.{name} version"] = (tensor._version, id(tensor.grad))
    return found
