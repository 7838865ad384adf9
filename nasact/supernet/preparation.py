"""What `relax` and the two ways to a derived network share: the plan of a copied model, and what a site's module needs.

Must not know supernets or genotypes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nasact import activations
from nasact.errors import SurgeryError
from nasact.surgery.audited_plan import Example
from nasact.surgery.copying import check_model, copy_model
from nasact.surgery.install import install, without_hooks
from nasact.surgery.plan import SurgeryPlan
from nasact.surgery.sites import plan_surgery


def function_names(space: str | Sequence[str]) -> tuple[str, ...]:
    """The catalogue names of the functions in a search space, given by name or as a sequence of names or aliases."""
    names = activations.load_space(space) if isinstance(space, str) else tuple(space)
    return tuple(activations.get(name).name for name in names)


def reference_tensor(*modules: nn.Module | None) -> Tensor:
    """A tensor with the device and dtype of a site: the first floating point parameter of its parent, else its model.

    `modules`: the parent and the model, in this order.
    """
    for module in modules:
        for parameter in module.parameters() if module is not None else ():
            if parameter.is_floating_point():
                return parameter
    return torch.empty(0)


def plan_copy(
    model: nn.Module,
    *,
    inplace: bool = False,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    partial: bool = False,
    example_input: Example | None = None,
) -> SurgeryPlan:
    """The sites of a copy of `model` or, with `inplace`, of `model` itself.

    `example_input`: one input of the model, which shows what reading the model's code does not. It is not used with
    `inplace`, because a copy would have to run.
    Raises SurgeryError if the model cannot be copied or has no site, and for a site in a part that the copy shares with
    the model (by a `__deepcopy__` of the user's): it would be replaced in the model too.
    """
    if inplace:
        check_model(model)
        return plan_surgery(model, include=include, exclude=exclude, partial=partial)
    plan = plan_surgery(
        copy_model(model), include=include, exclude=exclude, partial=partial, example_input=example_input
    )
    own = {id(module) for module in model.modules()}
    shared = [name for name, (_, location) in plan.sites.items() if id(location.parent) in own]
    if shared:
        raise SurgeryError(
            f"site {shared[0]!r}: a copy of the model shares this part with the model (by its __deepcopy__), and would "
            "change it too: exclude it, or pass inplace=True"
        )
    return plan


def plan_all(model: nn.Module, names: Sequence[str], *, inplace: bool = False) -> SurgeryPlan:
    """The plan of a copy of `model` (with `inplace`: of itself) that chooses all sites, and the gates among `names`."""
    try:
        plan = plan_copy(model, inplace=inplace, partial=True)
    except SurgeryError:  # a model without any activation that is no gate
        return plan_copy(model, inplace=inplace, include=tuple(names), partial=True)
    gates = {name: gate for name, gate in plan.gates.items() if name in names}
    return replace(plan, sites={**plan.sites, **gates})


@dataclass(frozen=True)
class OwnActivation:
    """The model's own activation at a site, out of place. `function`: its catalogue name, or "original"."""

    function: str
    module: nn.Module

    @classmethod
    def all_of(cls, plan: SurgeryPlan) -> dict[str, OwnActivation]:
        """Site name to the model's own activation."""
        return {name: cls(site.function, location.original) for name, (site, location) in plan.sites.items()}


def as_candidate(original: nn.Module) -> nn.Module:
    """A model's own activation for a bank: without its hooks, sharing its parameters, with dictionaries of its own.

    An activation that is called at two places is then in two banks. `torch.func.functional_call` would leave a tensor
    for the parameter in a dictionary that both of them have.
    """
    copied = without_hooks(original)
    for name in ("_parameters", "_buffers", "_modules"):
        vars(copied)[name] = dict(vars(copied)[name])
    return copied


def install_with_originals(plan: SurgeryPlan, modules: Mapping[str, nn.Module]) -> nn.Module:
    """Install `modules`, some of which are the model's own activations: these keep their mode.

    A module with parameters that is called at several places, and is kept at all of them, stays as it is: installed at
    each place, its parameters would get further names, which saved weights do not have.
    """
    own = OwnActivation.all_of(plan)
    kept = {name for name in own if modules.get(name, own[name].module) is own[name].module}
    sharing = {name: {other for other in own if _state(own[other].module) & _state(own[name].module)} for name in own}
    unchanged = {name for name in kept if len(sharing[name]) > 1 and sharing[name] <= kept}
    modes = {name: own[name].module.training for name in kept if plan.sites[name][0].kind == "module"}
    root = install(plan, {name: module for name, module in modules.items() if name not in unchanged})
    for name, training in modes.items():
        own[name].module.train(training)
    return root


def _state(module: nn.Module) -> set[int]:
    return {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
