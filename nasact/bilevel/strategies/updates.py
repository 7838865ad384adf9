"""The updates that strategies share: one of alpha, one of the weights, and a forward pass. Must not know strategies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nasact.bilevel.problem import Batch, Gradients, scalar, trainable_weights
from nasact.bilevel.regularisers.penalised_loss import penalised
from nasact.bilevel.strategies.state import SearchState, alpha_names
from nasact.errors import Divergence

if TYPE_CHECKING:
    from nasact.supernet import Supernet


def train_mode(supernet: Supernet) -> None:
    """Set train mode again after an evaluation; a submodule in eval mode of a supernet in train mode stays in eval."""
    if not supernet.training:
        supernet.train()


def forward(state: SearchState, batch: Batch) -> Tensor:
    """Return the loss of the real module; buffers are updated. Its gradient includes all regularisers."""
    loss = scalar(state.loss(state.supernet(batch.x), batch.y))
    return penalised(loss, state.regularisers, "both", state.supernet, {}, state.progress)


def move_alpha(state: SearchState, grads: Gradients) -> None:
    """Take one step of alpha with its learning rate times `alpha_lr_scale`, then project it to its feasible set."""
    alphas = state.supernet.arch_parameters()
    require_finite_gradients(state, grads)
    set_gradients(alphas, grads)
    rates = [group["lr"] for group in state.alpha_optimiser.param_groups]
    try:
        for group, rate in zip(state.alpha_optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * state.alpha_lr_scale
        state.alpha_optimiser.step()
    finally:
        for group, rate in zip(state.alpha_optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
    state.supernet.project_()


def move_weights(state: SearchState, grads: Gradients) -> None:
    """Take one step of the weights."""
    set_gradients(trainable_weights(state.supernet), grads)
    state.weight_optimiser.step()


def set_gradients(parameters: Sequence[nn.Parameter], grads: Gradients) -> None:
    """Set each `grad`; None stays None, so that torch's optimisers skip the parameter, its weight decay included."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad


def require_finite(loss: Tensor | None, name: str, state: SearchState) -> None:
    """Raise Divergence if `loss` is not finite; `name` names it: "training" or "validation"."""
    if loss is not None and not bool(torch.isfinite(loss)):
        raise Divergence(f"step {state.step + 1}: the {name} loss is {loss.item()}")


def require_finite_gradients(state: SearchState, grads: Gradients) -> None:
    """Raise Divergence, with the site, if a gradient of alpha is not finite."""
    for name, grad in zip(alpha_names(state.supernet), grads, strict=True):
        if grad is not None and not bool(torch.isfinite(grad).all()):
            raise Divergence(f"step {state.step + 1}: {name}: the gradient of alpha is not finite")
