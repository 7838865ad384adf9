"""Double backward: forward passes whose gradient can be differentiated again. Knows torch's kernels, not losses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nasact.errors import ModelError, one_line


class NoSecondDerivative(ModelError):
    """The gradient of the model cannot be differentiated; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(_ADVICE.format(reason=reason))
        self.reason = reason


@contextmanager
def twice_differentiable(module: nn.Module) -> Iterator[None]:
    """Inside the block, forward passes do not use kernels without a second derivative.

    These kernels are fused attention (flash, memory-efficient; on CPUs too if attention has no dropout) and cuDNN's
    recurrent layers.
    """
    recurrent = any(isinstance(submodule, nn.RNNBase) for submodule in module.modules())
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
    """Inside the block, torch's error for a missing second derivative becomes NoSecondDerivative, with advice."""
    try:
        yield
    except RuntimeError as error:
        reason = one_line(error)
        if "derivative" not in reason or "not implemented" not in reason:
            raise
        raise NoSecondDerivative(reason) from error


def require_second_derivatives(grads: Iterable[Tensor | None]) -> None:
    """Raise NoSecondDerivative if `grads` depend on a function marked `once_differentiable`.

    torch does not raise when only the gradients of some inputs are computed: it omits the path silently.
    """
    queue = [grad.grad_fn for grad in grads if grad is not None and grad.grad_fn is not None]
    visited = set(queue)
    while queue:
        node = queue.pop()
        if node.name() == "torch::autograd::Error":
            raise NoSecondDerivative("a function is marked once_differentiable")
        unvisited = {function for function, _ in node.next_functions if function is not None} - visited
        visited |= unvisited
        queue.extend(unvisited)


_ADVICE = (
    "the model has an operation without a second derivative ({reason}): use strategy darts with order 1, or with "
    "mixed: finite_difference"
)
