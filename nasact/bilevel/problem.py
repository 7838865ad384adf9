"""The bilevel problem: two losses as pure functions of network weights `w` and architecture parameters `alpha`.

Knows the supernet only as a module with two lists of parameters; knows no optimiser and no hypergradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasact.bilevel.double_backward import require_second_derivatives, twice_differentiable
from nasact.bilevel.randomness import devices_of, draw_seed, seeded
from nasact.bilevel.regularisers import Regulariser, penalised
from nasact.errors import ModelError, StudyError

if TYPE_CHECKING:
    from nasact.supernet import Supernet

Tensors: TypeAlias = tuple[Tensor, ...]
Gradients: TypeAlias = tuple[Tensor | None, ...]
Buffers: TypeAlias = list[tuple[Tensor, Tensor]]
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one step, on the supernet's device."""

    x: Tensor
    y: Tensor


class Problem(Protocol):
    """Two losses, pure: the same `w` and `alpha` give the same loss to the bit, and calling them changes nothing."""

    def train_loss(self, w: Tensors, alpha: Tensors) -> Tensor: ...

    def val_loss(self, w: Tensors, alpha: Tensors) -> Tensor: ...


@dataclass(frozen=True)
class SupernetProblem:
    """A supernet on one training and one validation batch.

    Every call reads the supernet's buffers as they stand and works on clones of them, and every call of one loss draws
    the same dropout masks (from the loss's own seed). So a call leaves no trace, and the passes of one hypergradient
    differ in nothing but `w` and `alpha`.

    `regularisers` join the loss they are on, at `progress`: its gradients of every order are those of the total, its
    value is that of the loss alone (`regularisers.penalised`).
    """

    supernet: Supernet
    loss: Loss
    train: Batch
    val: Batch
    train_seed: int
    val_seed: int
    regularisers: tuple[Regulariser, ...] = ()
    progress: float = 0.0

    @classmethod
    def draw(
        cls,
        supernet: Supernet,
        loss: Loss,
        train: Batch,
        val: Batch,
        regularisers: tuple[Regulariser, ...] = (),
        progress: float = 0.0,
    ) -> SupernetProblem:
        """With two seeds from the global generator: all that a hypergradient takes from it."""
        return cls(supernet, loss, train, val, draw_seed(), draw_seed(), regularisers, progress)

    @property
    def w(self) -> Tensors:
        return tuple(weight.detach() for weight in trainable_weights(self.supernet))

    @property
    def alpha(self) -> Tensors:
        return tuple(alpha.detach() for alpha in self.supernet.arch_parameters())

    def train_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        """Twice differentiable, as far as the model is."""
        return self.train_pass(w, alpha)[0]

    def train_pass(self, w: Tensors, alpha: Tensors) -> tuple[Tensor, Buffers]:
        """The training loss, and what the pass would have left in the buffers: (buffer, its numbers after it)."""
        with twice_differentiable(self.supernet):
            return self._loss("training", self.train, self.train_seed, w, alpha)

    def val_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        return self._loss("validation", self.val, self.val_seed, w, alpha)[0]

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], ...]:
        """The names of each weight and each alpha: several where modules are tied by sharing a parameter."""
        names = _names_by_tensor(self.supernet, "_parameters")
        return tuple(names[id(p)][1] for p in (*trainable_weights(self.supernet), *self.supernet.arch_parameters()))

    def _loss(
        self, on: Literal["training", "validation"], batch: Batch, seed: int, w: Tensors, alpha: Tensors
    ) -> tuple[Tensor, Buffers]:
        tensors = {name: tensor for names, tensor in zip(self._names, (*w, *alpha), strict=True) for name in names}
        buffers = []
        for buffer, names in _names_by_tensor(self.supernet, "_buffers").values():
            clone = buffer.clone()
            tensors.update(dict.fromkeys(names, clone))
            buffers.append((buffer, clone))
        with seeded(seed, devices_of((batch.x, *w, *alpha))):
            # torch's own tying puts the wrong tensor back into a module that is registered under two names. The names
            # here are one a module, so that it is not needed.
            output = functional_call(self.supernet, tensors, (batch.x,), tie_weights=False)
            loss = scalar(self.loss(output, batch.y))
        if not self.regularisers:
            return loss, buffers
        parameters = (*trainable_weights(self.supernet), *self.supernet.arch_parameters())
        given = {id(parameter): tensor for parameter, tensor in zip(parameters, (*w, *alpha), strict=True)}
        return penalised(loss, self.regularisers, on, self.supernet, given, self.progress), buffers


def _names_by_tensor(
    module: nn.Module, kind: Literal["_parameters", "_buffers"]
) -> dict[int, tuple[Tensor, tuple[str, ...]]]:
    """Every parameter or buffer with its names, by identity; a module that stands at two places counts once."""
    found: dict[int, tuple[Tensor, tuple[str, ...]]] = {}
    for path, owner in module.named_modules():
        for name, tensor in getattr(owner, kind).items():
            if tensor is not None:
                names = found[id(tensor)][1] if id(tensor) in found else ()
                found[id(tensor)] = (tensor, (*names, f"{path}.{name}" if path else name))
    return found


def trainable_weights(supernet: Supernet) -> list[nn.Parameter]:
    """The network weights that training may change: a frozen one is a constant of the problem."""
    return [weight for weight in supernet.weight_parameters() if weight.requires_grad]


def scalar(loss: Tensor) -> Tensor:
    if loss.dim() != 0:
        raise ModelError(f"the loss must be one number, but got a tensor of shape {tuple(loss.shape)}")
    return loss


def leaves(tensors: Sequence[Tensor]) -> Tensors:
    """The same numbers as fresh leaves that ask for gradients; no memory is copied."""
    return tuple(tensor.detach().requires_grad_() for tensor in tensors)


def gradients(loss: Tensor, inputs: Sequence[Tensor], *, create_graph: bool = False) -> Gradients:
    """Gradients of `loss`, None where an input does not reach it (as torch's optimisers tell apart None and zero)."""
    if not loss.requires_grad or not inputs:
        return (None,) * len(inputs)
    found = torch.autograd.grad(loss, list(inputs), create_graph=create_graph, allow_unused=True)
    if create_graph:
        require_second_derivatives(found)
    return found


def product(
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
    v: Sequence[Tensor | None],
    *,
    retain_graph: bool = False,
) -> Gradients:
    """d/d inputs <outputs, v>: the vector-Jacobian product; None where an input has no part in it.

    `retain_graph`: whether another product will go through the graph of `outputs`.
    """
    pairs = [
        (out, vec)
        for out, vec in zip(outputs, v, strict=True)
        if out is not None and out.requires_grad and vec is not None
    ]
    wanted = [tensor for tensor in inputs if tensor is not None]
    if not pairs or not wanted:
        return (None,) * len(inputs)
    found = iter(
        torch.autograd.grad(
            [out for out, _ in pairs], wanted, [vec for _, vec in pairs], retain_graph=retain_graph, allow_unused=True
        ),
    )
    return tuple(None if tensor is None else next(found) for tensor in inputs)


def detached(found: Gradients) -> Gradients:
    return tuple(None if gradient is None else gradient.detach() for gradient in found)


def materialise(found: Gradients, like: Sequence[Tensor]) -> Tensors:
    """Zeros in place of None."""
    return tuple(torch.zeros_like(t) if g is None else g.detach() for g, t in zip(found, like, strict=True))


def require_weights_known(supernet: Supernet) -> None:
    """Every weight and alpha must be a registered parameter: else the losses could not be functions of it."""
    known = {id(parameter) for parameter in supernet.parameters()}
    for kind, parameters in (("weight", supernet.weight_parameters()), ("alpha", supernet.arch_parameters())):
        for index, parameter in enumerate(parameters):
            if id(parameter) not in known:
                raise StudyError(f"{kind} {index} of shape {tuple(parameter.shape)} is no parameter of the supernet")
