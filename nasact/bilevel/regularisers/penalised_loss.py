"""Regularisers applied to a supernet: the penalised loss, what penalties are computed from, and what is refused.

Knows a supernet by its parameters, modules and mixtures; must not know strategies.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from nasact.bilevel.regularisers.base import (
    LossName,
    Penalty,
    Perturbation,
    Regulariser,
    RegulariserContext,
    SearchSetting,
)
from nasact.errors import Divergence, StudyError
from nasact.mixture import Mixture

if TYPE_CHECKING:
    from nasact.supernet import Supernet

_NO_KERNELS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
_OUT_IN_DIMENSION_1 = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def penalties(regularisers: Sequence[Regulariser]) -> tuple[Penalty, ...]:
    return tuple(each for each in regularisers if callable(each))


def perturbations(regularisers: Sequence[Regulariser]) -> tuple[Perturbation, ...]:
    return tuple(each for each in regularisers if not callable(each))


def penalised(
    loss: Tensor,
    regularisers: Sequence[Regulariser],
    loss_name: LossName | Literal["both"],
    supernet: Supernet,
    tensors: dict[int, Tensor],
    progress: float,
) -> Tensor:
    """Return a tensor with the VALUE of `loss` and the gradients, of every order, of loss + penalties.

    Reported losses stay comparable between searches with different regularisers. `loss_name`: the penalties of this
    loss are added; "both": all penalties. `tensors`: id of a parameter -> the tensor used instead of it. Return `loss`
    itself if no penalty is added; raise Divergence if a penalty is not finite.
    """
    added = [penalty for penalty in penalties(regularisers) if loss_name in (penalty.target_loss, "both")]
    if not added:
        return loss
    context = regulariser_context(supernet, tensors, progress)
    for penalty in added:
        term = penalty(context)
        if not bool(torch.isfinite(term)):
            raise Divergence(f"the regulariser {penalty.name!r} is {term.item()}")
        loss = loss + (term - term.detach()).to(loss)
    return loss


def regulariser_context(supernet: Supernet, tensors: dict[int, Tensor], progress: float) -> RegulariserContext:
    """Return what penalties are computed from: the supernet's tensors, with `tensors` instead of its parameters.

    A parameter without an entry in `tensors` is used itself. Dropped candidates are left out.
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
    """Return the trainable weights of at least two dimensions, (out, ...), by name; a shared weight once.

    Mixtures, embeddings and norms are left out.
    """
    in_mixtures = {
        id(part) for module in supernet.modules() if isinstance(module, Mixture) for part in module.modules()
    }
    found: dict[int, tuple[str, Tensor]] = {}
    for path, module in supernet.named_modules():
        if id(module) in in_mixtures or isinstance(module, _NO_KERNELS):
            continue
        for name, weight in module.named_parameters(recurse=False):
            if "weight" in name and weight.dim() >= 2 and weight.requires_grad and id(weight) not in found:
                tensor = tensors.get(id(weight), weight)
                kernel = tensor.transpose(0, 1) if isinstance(module, _OUT_IN_DIMENSION_1) else tensor
                found[id(weight)] = (f"{path}.{name}" if path else name, kernel)
    return dict(found.values())


def refusal(regulariser: Regulariser, setting: SearchSetting) -> str | None:
    """Return why the regulariser would have no meaning in this setting; None if it can be applied."""
    if regulariser.target_loss == "validation" and not setting.alpha_moves:
        return "it is added to the loss that alpha minimises, but with this strategy alpha never moves"
    return regulariser.refusal(setting)


def require_supported(
    regularisers: Sequence[Regulariser], supernet: Supernet, settings: Mapping[str, SearchSetting]
) -> None:
    """Raise StudyError, with the first such site and the reason, if a regulariser cannot be applied at a site.

    `settings`: by site.
    """
    names = [each.name for each in regularisers]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise StudyError(f"regulariser {name!r} is given twice")
    for each in regularisers:
        for site, setting in settings.items():
            reason = refusal(each, setting)
            if reason is not None:
                raise StudyError(f"site {site!r}: regulariser {each.name!r} cannot be applied: {reason}")
    if regularisers:
        with torch.no_grad():
            context = regulariser_context(supernet, {}, 0.0)
            for penalty in penalties(regularisers):
                penalty(context)  # some penalties can be checked only here, e.g. one lambda for each site
