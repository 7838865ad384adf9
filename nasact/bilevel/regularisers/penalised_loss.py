"""Regularisers and a supernet: what they see of it, the loss they join, and where they are refused.

Knows a supernet by its parameters, modules and mixtures; knows no strategy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nasact.bilevel.regularisers.base import Penalty, Perturbation, Regulariser, RegulariserContext, Setting
from nasact.errors import Divergence, StudyError
from nasact.mixture import Mixture

if TYPE_CHECKING:
    from nasact.supernet import Supernet

_NO_KERNELS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
_OUT_SECOND = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def penalties(regularisers: Sequence[Regulariser]) -> tuple[Penalty, ...]:
    return tuple(each for each in regularisers if callable(each))


def perturbations(regularisers: Sequence[Regulariser]) -> tuple[Perturbation, ...]:
    return tuple(each for each in regularisers if not callable(each))


def penalised(
    loss: Tensor,
    regularisers: Sequence[Regulariser],
    on: Literal["validation", "training", "both"],
    supernet: Supernet,
    tensors: dict[int, Tensor],
    progress: float,
) -> Tensor:
    """`loss` with the gradients, of every order, of loss + penalties, and the VALUE of the loss alone.

    So what is reported of a search stays comparable, whatever its regularisers. `tensors`: what stands for each
    parameter, by the parameter's id. With no penalty on this loss it is returned as it is. Divergence where a penalty
    is not finite.
    """
    joining = [each for each in penalties(regularisers) if on in (each.on, "both")]
    if not joining:
        return loss
    context = regulariser_context(supernet, tensors, progress)
    for each in joining:
        term = each(context)
        if not bool(torch.isfinite(term)):
            raise Divergence(f"the regulariser {each.name!r} is {term.item()}")
        loss = loss + (term - term.detach()).to(loss)
    return loss


def regulariser_context(supernet: Supernet, tensors: dict[int, Tensor], progress: float) -> RegulariserContext:
    """The supernet with `tensors` in the place of its parameters, those that are not among them as they are.

    Candidates that were dropped are not context.
    """
    alphas, p, functions = {}, {}, {}
    for site, mixture in supernet.mixtures().items():
        alpha = tensors.get(id(mixture.alpha), mixture.alpha)
        alphas[site] = alpha if mixture.alive_at is None else alpha.index_select(-1, mixture.alive_at)
        p[site] = mixture.normaliser.weights(alphas[site], mixture.temperature, False)
        functions[site] = tuple(itertools.compress(mixture.names, mixture.alive.tolist()))
    return RegulariserContext(
        kernels=_kernels(supernet, tensors),
        alphas=alphas,
        p=p,
        functions=functions,
        originals={site.name: site.function for site in supernet.sites},
        progress=progress,
    )


def _kernels(supernet: Supernet, tensors: dict[int, Tensor]) -> dict[str, Tensor]:
    """Trainable weights of at least two dimensions, outside mixtures, embeddings and norms; each once, (out, ...)."""
    mixed = {id(part) for module in supernet.modules() if isinstance(module, Mixture) for part in module.modules()}
    found: dict[int, tuple[str, Tensor]] = {}
    for path, module in supernet.named_modules():
        if id(module) in mixed or isinstance(module, _NO_KERNELS):
            continue
        for name, weight in module.named_parameters(recurse=False):
            if "weight" in name and weight.dim() >= 2 and weight.requires_grad and id(weight) not in found:
                tensor = tensors.get(id(weight), weight)
                kernel = tensor.transpose(0, 1) if isinstance(module, _OUT_SECOND) else tensor
                found[id(weight)] = (f"{path}.{name}" if path else name, kernel)
    return dict(found.values())


def refusal(regulariser: Regulariser, setting: Setting) -> str | None:
    """Why it would mean nothing there; None where it serves."""
    if regulariser.on == "validation" and not setting.alpha_moves:
        return "it joins the loss that alpha goes down, and with this strategy alpha never moves"
    return regulariser.refusal(setting)


def require_supported(regularisers: Sequence[Regulariser], supernet: Supernet, settings: Mapping[str, Setting]) -> None:
    """StudyError naming the first site where a regulariser would mean nothing, and why. `settings` by site."""
    names = [each.name for each in regularisers]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise StudyError(f"regulariser {name!r} is given twice")
    for each in regularisers:
        for site, setting in settings.items():
            reason = refusal(each, setting)
            if reason is not None:
                raise StudyError(f"site {site!r}: regulariser {each.name!r} cannot serve: {reason}")
    if regularisers:
        with torch.no_grad():
            context = regulariser_context(supernet, {}, 0.0)
            for penalty in penalties(regularisers):
                penalty(context)  # some can tell only now: one lambda for each site
