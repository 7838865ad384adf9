"""The inner step `w -> w'`: torch's own SGD, Adam and AdamW as pure, differentiable functions.

Reads an optimiser's parameter groups and state, and changes neither. Must not know losses or supernets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nasact.bilevel.problem import Gradients, Tensors
from nasact.errors import StudyError

Options: TypeAlias = Mapping[str, Any]
State: TypeAlias = Mapping[str, Any]
Update: TypeAlias = Callable[[Tensor, Tensor, Options, State], tuple[Tensor, State]]


@dataclass(frozen=True)
class ParameterRule:
    """The update rule of one parameter, with the options of its group and its optimiser state."""

    update: Update
    options: Options
    state: State


@dataclass(frozen=True)
class InnerStep:
    """One optimiser step as a pure function. A parameter without a rule or without a gradient does not change."""

    rules: tuple[ParameterRule | None, ...]

    def __call__(self, w: Tensors, grads: Gradients) -> Tensors:
        return self.step(w, grads)[0]

    def step(self, w: Tensors, grads: Gradients) -> tuple[Tensors, InnerStep]:
        """Return `w'` and the following step, with updated momentum and moments."""
        updated: list[Tensor] = []
        rules: list[ParameterRule | None] = []
        for weight, grad, rule in zip(w, grads, self.rules, strict=True):
            if rule is None or grad is None:
                updated.append(weight)
                rules.append(rule)
                continue
            weight_after, state = rule.update(weight, grad, rule.options, rule.state)
            updated.append(weight_after)
            rules.append(replace(rule, state=state))
        return tuple(updated), InnerStep(tuple(rules))


def sgd(w: Tensor, grad: Tensor, options: Options, state: State) -> tuple[Tensor, State]:
    """torch.optim.SGD: momentum, dampening, Nesterov, weight decay, maximize."""
    grad = _with_weight_decay(w, -grad if options["maximize"] else grad, options)
    momentum = float(options["momentum"])
    if momentum != 0:
        buffer = state.get("momentum_buffer")
        buffer = grad if buffer is None else torch.add(buffer * momentum, grad, alpha=1 - float(options["dampening"]))
        grad = torch.add(grad, buffer, alpha=momentum) if options["nesterov"] else buffer
        state = {"momentum_buffer": buffer}
    return torch.add(w, grad, alpha=-float(options["lr"])), state


def adam(w: Tensor, grad: Tensor, options: Options, state: State) -> tuple[Tensor, State]:
    """torch.optim.Adam and AdamW: bias correction, amsgrad, weight decay in the gradient or decoupled, maximize."""
    beta1, beta2 = (float(beta) for beta in options["betas"])
    lr = float(options["lr"])
    grad = -grad if options["maximize"] else grad
    if options["decoupled_weight_decay"]:
        w = w * (1 - lr * float(options["weight_decay"]))
    else:
        grad = _with_weight_decay(w, grad, options)
    step = float(state["step"]) + 1 if state else 1.0
    mean = torch.lerp(state["exp_avg"] if state else torch.zeros_like(w), grad, 1 - beta1)
    square = torch.addcmul((state["exp_avg_sq"] if state else torch.zeros_like(w)) * beta2, grad, grad, value=1 - beta2)
    new_state: dict[str, Any] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
    if options["amsgrad"]:
        square = torch.maximum(state["max_exp_avg_sq"], square) if state else square
        new_state["max_exp_avg_sq"] = square
    denominator = _root(square) / (1 - beta2**step) ** 0.5 + float(options["eps"])
    return torch.addcdiv(w, mean, denominator, value=-lr / (1 - beta1**step)), new_state


# By exact type: a subclass may have another update rule.
RULES: Mapping[type[torch.optim.Optimizer], Update] = MappingProxyType(
    {torch.optim.SGD: sgd, torch.optim.Adam: adam, torch.optim.AdamW: adam},
)


def inner_step(optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> InnerStep:
    """Return the next step of `optimiser`, for `parameters` in this order; StudyError if its rule is not known."""
    update = RULES.get(type(optimiser))
    if update is None:
        known = ", ".join(kind.__name__ for kind in RULES)
        raise StudyError(
            f"the inner step of {type(optimiser).__name__} is not known: a strategy that differentiates through it "
            f"needs one of {known}"
        )
    groups = {
        id(parameter): {option: value for option, value in group.items() if option != "params"}
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    return InnerStep(
        tuple(
            ParameterRule(update, groups[id(parameter)], dict(optimiser.state.get(parameter, {})))
            if id(parameter) in groups
            else None
            for parameter in parameters
        ),
    )


def _with_weight_decay(w: Tensor, grad: Tensor, options: Options) -> Tensor:
    decay = float(options["weight_decay"])
    return torch.add(grad, w, alpha=decay) if decay != 0 else grad


def _root(square: Tensor) -> Tensor:
    """Return the square root, with derivative 0 at 0: the first moment is 0 there, and infinity * 0 would be NaN."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
