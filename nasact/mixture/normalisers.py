"""Normalisers: from architecture parameters `alpha` (..., K) to mixture weights `p` (..., K). One record each.

A normaliser whose alphas must stay in a feasible set (`ratio`, `convex`, `clip`, `dirichlet`) has a `project`, to be
called after every step on alpha. Knows tensors; must not know mixtures or searches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nasact.errors import MixtureError
from nasact.mixture import dirichlet
from nasact.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """How alphas become mixture weights. tests/mixture/test_normaliser_properties.py checks every property by numbers.

    `weights(alpha, temperature, sample)` returns p like alpha: alpha (..., K) floating, temperature a 0-d tensor,
    `sample` True in training, False in evaluation (a stochastic normaliser then draws nothing).
    `inverse(p, temperature)` returns alphas that yield `p` in evaluation.
    """

    name: str
    formula: str
    source: str
    weights: Callable[[Tensor, Tensor, bool], Tensor]
    inverse: Callable[[Tensor, Tensor], Tensor]
    total: Literal["sum", "absolute", "none"]
    """Which total of the weights is one: sum p, sum |p|, or neither."""
    signed: bool = False
    """Whether weights may be negative."""
    stochastic: bool = False
    """Whether training draws the weights: they then differ from one pass to the next, and from evaluation."""
    draws_one: bool = False
    """Whether a draw is one function per row, with weight one: the other functions get no gradient in that pass."""
    logits: bool = False
    """Whether alphas are logits of a softmax: p = softmax(alpha) in evaluation at temperature 1."""
    independent_gates: bool = False
    """Whether each weight is a gate in (0, 1) that depends on its own alpha only."""
    tempered: bool = False
    """Whether the temperature matters."""
    function_of_alpha_over_t: bool = False
    """Whether the temperature divides alpha and enters nowhere else, in training and evaluation: a lower T then makes
    every step of alpha larger by the same factor."""
    vertex_slack: float = 0.0
    """Weight left to the other functions when one is to dominate at the start; 0 if the normaliser reaches a vertex
    exactly and still has a gradient there."""
    project: Callable[[Tensor], Tensor] | None = None
    """Return the nearest feasible alphas; None if every alpha is feasible."""

    @property
    def on_simplex(self) -> bool:
        """Whether weights lie on the simplex, the same in training and evaluation."""
        return self.total == "sum" and not self.signed and not self.stochastic

    def uniform(self, k: int) -> Tensor:
        """Return weights that prefer no function, shape (K,): 1/K each; a half each for independent gates."""
        return torch.full((k,), 0.5 if self.independent_gates else 1.0 / k, dtype=torch.float64)

    def vertex(self, k: int, index: int) -> Tensor:
        """Return the weights, shape (K,), that take only function `index`, but for `vertex_slack`."""
        others = self.vertex_slack if self.independent_gates else self.vertex_slack / max(k - 1, 1)
        p = torch.full((k,), others, dtype=torch.float64)
        p[index] = 1.0 - (self.vertex_slack if k > 1 else 0.0)
        return p

    def renormalise(self, p: Tensor, where: str) -> Tensor:
        """Return `p` (..., K) divided by its `total`; raise MixtureError, with `where`, if the total is zero."""
        if self.total == "none":
            return p
        scale = p.abs().sum(-1, keepdim=True)
        total = scale if self.total == "absolute" else p.sum(-1, keepdim=True)
        if bool((total.abs() <= 1e-6 * scale.clamp_min(1e-30)).any()) or not bool(torch.isfinite(total).all()):
            shown = [round(float(value), 6) for value in p.reshape(-1, p.shape[-1])[0]]
            raise MixtureError(
                f"{where}: {self.name} weights {shown} sum to zero: they cannot be normalised to sum to one"
            )
        return p / total


NORMALISERS: Registry[Normaliser] = Registry("normaliser", "nasact list normalisers")


def _identity(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    return alpha


def _keep(p: Tensor, temperature: Tensor) -> Tensor:
    return p


def _log(p: Tensor, temperature: Tensor) -> Tensor:
    alpha = p.clamp_min(1e-30).log() * temperature
    return alpha - alpha.mean(-1, keepdim=True)


def _softmax(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    return torch.softmax(alpha / temperature, dim=-1)


def _gumbel(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    if not sample:
        return torch.softmax(alpha, dim=-1)
    return torch.softmax((alpha + _gumbel_noise(alpha)) / temperature, dim=-1)


def _gumbel_hard(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    if not sample:
        return torch.softmax(alpha, dim=-1)
    soft = torch.softmax((torch.log_softmax(alpha, dim=-1) + _gumbel_noise(alpha)) / temperature, dim=-1)
    hard = F.one_hot(soft.argmax(-1), alpha.shape[-1]).to(alpha.dtype)
    return hard + (soft - soft.detach())  # in this order the added term is exactly zero


def _gumbel_noise(alpha: Tensor) -> Tensor:
    """Return standard Gumbel noise like alpha, always finite.

    The code of GDAS draws again when its noise is not finite. That waits for the device at every draw, and never ends
    if alpha is NaN.
    """
    drawn = torch.empty_like(alpha, memory_format=torch.contiguous_format).exponential_()
    return -drawn.clamp_(torch.finfo(alpha.dtype).tiny, torch.finfo(alpha.dtype).max).log()


def _log_untempered(p: Tensor, temperature: Tensor) -> Tensor:
    return _log(p, torch.ones_like(temperature))


def _ratio(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    total = alpha.sum(-1, keepdim=True)
    return torch.where(total > 0, alpha / torch.where(total > 0, total, 1.0), 1.0 / alpha.shape[-1])


def _project_ratio(alpha: Tensor) -> Tensor:
    alpha = alpha.clamp_min(0)
    return torch.where(alpha.sum(-1, keepdim=True) > 0, alpha, 1.0 / alpha.shape[-1])


def project_simplex(alpha: Tensor) -> Tensor:
    """Return the Euclidean projection of each row of alpha (..., K) onto the simplex (Duchi et al. 2008, Fig. 1).

    A row that is on the simplex up to rounding is returned unchanged, bit for bit. Otherwise weights smaller than the
    rounding would become zero, and a multiplicative update never changes a zero.
    """
    rounding = 2 * torch.finfo(alpha.dtype).eps * alpha.shape[-1]
    feasible = (alpha.amin(-1, keepdim=True) >= 0) & ((alpha.sum(-1, keepdim=True) - 1).abs() <= rounding)
    ordered = alpha.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    rank = torch.arange(1, alpha.shape[-1] + 1, dtype=alpha.dtype, device=alpha.device)
    support = (ordered * rank > excess).sum(-1, keepdim=True).clamp_min(1)
    threshold = excess.gather(-1, support - 1) / support
    return torch.where(feasible, alpha, (alpha - threshold).clamp_min(0))


def _affine(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    # The nearest point of the hyperplane sum p = 1. A division by the sum would reach the same set, but diverges
    # when a step crosses sum = 0.
    return alpha + (1 - alpha.sum(-1, keepdim=True)) / alpha.shape[-1]


def _abs(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    return alpha / alpha.abs().sum(-1, keepdim=True).clamp_min(torch.finfo(alpha.dtype).tiny)


def _clip(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    positive = alpha.clamp_min(0)
    total = positive.sum(-1, keepdim=True)
    # The limit of a row whose entries fall to zero: the largest entry is the last that is positive.
    last = F.one_hot(alpha.argmax(-1), alpha.shape[-1]).to(alpha.dtype)
    return torch.where(total > 0, positive / torch.where(total > 0, total, 1.0), last)


def _project_clip(alpha: Tensor) -> Tensor:
    # An entry below zero has no gradient and cannot come back: keep at least one positive entry per row.
    without_gradient = alpha.amax(-1, keepdim=True) <= 0
    lifted = F.one_hot(alpha.argmax(-1), alpha.shape[-1]).to(alpha.dtype) * 1e-3
    return torch.where(without_gradient, lifted, alpha)


def _sigmoid(alpha: Tensor, temperature: Tensor, sample: bool) -> Tensor:
    return torch.sigmoid(alpha / temperature)


def _logit(p: Tensor, temperature: Tensor) -> Tensor:
    return torch.logit(p, eps=1e-6) * temperature


for _normaliser in (
    Normaliser(
        name="softmax",
        formula="exp(a_k / T) / sum_j exp(a_j / T)",
        source="arXiv:1806.09055; paper 001, section 3.1",
        weights=_softmax,
        inverse=_log,
        total="sum",
        vertex_slack=1e-3,
        tempered=True,
        function_of_alpha_over_t=True,
        logits=True,
    ),
    Normaliser(
        name="ratio",
        formula="a_k / sum_j a_j, a >= 0 kept by projection",
        source="paper 000, equation 9",
        weights=_ratio,
        inverse=_keep,
        total="sum",
        project=_project_ratio,
    ),
    Normaliser(
        name="convex",
        formula="a_k on the simplex, kept there by Euclidean projection",
        source="paper 004, conv(F)",
        weights=_identity,
        inverse=_keep,
        total="sum",
        project=project_simplex,
    ),
    Normaliser(
        name="affine",
        formula="a_k + (1 - sum_j a_j) / K",
        source="paper 004, aff(F)",
        weights=_affine,
        inverse=_keep,
        total="sum",
        signed=True,
    ),
    Normaliser(
        name="abs",
        formula="a_k / sum_j |a_j|",
        source="ABU (Suetfeld et al. 2018), second of its four; paper 001, section 2.1.2",
        weights=_abs,
        inverse=_keep,
        total="absolute",
        signed=True,
    ),
    Normaliser(
        name="clip",
        formula="max(a_k, 0) / sum_j max(a_j, 0)",
        source="ABU (Suetfeld et al. 2018), third of its four; paper 001, section 2.1.2",
        weights=_clip,
        inverse=_keep,
        total="sum",
        vertex_slack=1e-3,
        project=_project_clip,
    ),
    Normaliser(
        name="sigmoid",
        formula="1 / (1 + exp(-a_k / T)), independent gates",
        source="AAF (Dushkoff and Ptucha 2016); FairDARTS, arXiv:1911.12126",
        weights=_sigmoid,
        inverse=_logit,
        total="none",
        vertex_slack=1e-3,
        tempered=True,
        function_of_alpha_over_t=True,
        independent_gates=True,
    ),
    Normaliser(
        name="gumbel",
        formula="softmax((a + Gumbel noise) / T) in training, softmax(a) in evaluation",
        source="arXiv:1611.01144; GDAS, arXiv:1910.04465",
        weights=_gumbel,
        inverse=_log_untempered,
        total="sum",
        vertex_slack=1e-3,
        tempered=True,
        logits=True,
        stochastic=True,
    ),
    Normaliser(
        name="gumbel_hard",
        formula="one-hot at the largest of s = softmax((log softmax(a) + Gumbel noise) / T) in training, with the "
        "gradient of s; softmax(a) in evaluation",
        source="straight-through, arXiv:1611.01144; GDAS, arXiv:1910.04465",
        weights=_gumbel_hard,
        inverse=_log_untempered,
        total="sum",
        vertex_slack=1e-3,
        tempered=True,
        logits=True,
        stochastic=True,
        draws_one=True,
    ),
    Normaliser(
        name="dirichlet",
        formula="drawn from Dirichlet(elu(a) + 1) in training, its mean in evaluation",
        source="DrNAS, arXiv:2006.10355",
        weights=dirichlet.weights,
        inverse=dirichlet.inverse,
        total="sum",
        vertex_slack=5e-2,
        project=dirichlet.project_alpha,
        stochastic=True,
    ),
    Normaliser(
        name="free",
        formula="a_k",
        source="paper 003, equation 1, without its constraint",
        weights=_identity,
        inverse=_keep,
        total="none",
        signed=True,
    ),
):
    NORMALISERS.register(_normaliser.name, _normaliser)
