"""What `relax` and `Genotype.apply` share: the plan of a copied model, and what the module of a site needs.

Must not know supernets or genotypes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nasact import activations
from nasact.errors import SurgeryError
from nasact.surgery.copying import check_model, copy_model
from nasact.surgery.sites import SiteLocation, SurgeryPlan, plan_surgery


def function_names(space: str | Sequence[str]) -> tuple[str, ...]:
    """The catalogue names of the functions in a search space, given by name or as a sequence of names or aliases."""
    names = activations.load_space(space) if isinstance(space, str) else tuple(space)
    return tuple(activations.get(name).name for name in names)


def reference_tensor(model: nn.Module, location: SiteLocation) -> Tensor:
    """A tensor with the device and dtype for a site: a parameter of the site's parent, else one of the model."""
    for module in (location.parent, model):
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
) -> SurgeryPlan:
    """The sites of a copy of `model` or, with `inplace`, of `model` itself.

    Raises SurgeryError if the model cannot be copied or has no site, and for a site in a part that the copy shares with
    the model (by a `__deepcopy__` of the user's): it would be replaced in the model too.
    """
    if inplace:
        check_model(model)
        return plan_surgery(model, include=include, exclude=exclude, partial=partial)
    plan = plan_surgery(copy_model(model), include=include, exclude=exclude, partial=partial)
    own = {id(module) for module in model.modules()}
    shared = [name for name, (_, location) in plan.sites.items() if id(location.parent) in own]
    if shared:
        raise SurgeryError(
            f"site {shared[0]!r}: a copy of the model shares this part with the model (by its __deepcopy__), and would "
            "change it too: exclude it, or pass inplace=True"
        )
    return plan
