"""What a forward pass needs so that its gradient can be differentiated once more. Knows torch's kernels, no losses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nasact.errors import ModelError, one_line


class NoSecondDerivative(ModelError):
    """A model whose gradient cannot be differentiated, for this `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(_ADVICE.format(reason=reason))
        self.reason = reason


@contextmanager
def twice_differentiable(module: nn.Module) -> Iterator[None]:
    """Forward passes inside avoid the kernels that have no second derivative.

    Those are fused attention (flash, memory-efficient: also on CPUs, wherever attention has no dropout) and cuDNN's
    recurrent layers.
    """
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    enabled = torch.backends.cudnn.enabled
    try:
        if recurrent:
            torch.backends.cudnn.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if recurrent:
            torch.backends.cudnn.enabled = enabled


@contextmanager
def explain_missing_second_derivative() -> Iterator[None]:
    """A kernel without a second derivative becomes one line that says what to do."""
    try:
        yield
    except RuntimeError as error:
        reason = one_line(error)
        if "derivative" not in reason or "not implemented" not in reason:
            raise
        raise NoSecondDerivative(reason) from error


def require_second_derivatives(grads: Iterable[Tensor | None]) -> None:
    """ModelError when `grads` went through a function marked `once_differentiable`.

    torch does not raise there when asked for some inputs' gradients only: it leaves that path out without a word.
    """
    waiting = [grad.grad_fn for grad in grads if grad is not None and grad.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::Error":
            raise NoSecondDerivative("a function is marked once_differentiable")
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        waiting.extend(following)


_ADVICE = (
    "the model has an operation without a second derivative ({reason}): use strategy darts with order 1, or with "
    "mixed: finite_difference"
)
