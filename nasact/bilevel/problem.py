"""The bilevel problem: two losses as pure functions of network weights `w` and architecture parameters `alpha`.

Knows a supernet as a module with two lists of parameters; must not know optimisers or hypergradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nasact.bilevel.double_backward import require_second_derivatives, twice_differentiable
from nasact.bilevel.randomness import devices_of, draw_seed, seeded
from nasact.bilevel.regularisers.base import LossName, Regulariser
from nasact.bilevel.regularisers.penalised_loss import penalised
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
    """Two pure losses: the same `w` and `alpha` give the same loss to the bit, and a call changes nothing."""

    def train_loss(self, w: Tensors, alpha: Tensors) -> Tensor: ...

    def val_loss(self, w: Tensors, alpha: Tensors) -> Tensor: ...


@dataclass(frozen=True)
class SupernetProblem:
    """A supernet on one training and one validation batch.

    Every call works on clones of the supernet's current buffers. Every call of the same loss draws the same dropout
    masks, from the seed of that loss. So a call changes nothing, and the passes of one hypergradient differ only in `w`
    and `alpha`.

    Each of the `regularisers` is added to its loss, at `progress`: the gradients of every order are those of the total,
    the value is that of the loss without penalties (`regularisers.penalised`).
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
        """Return the problem, with two seeds drawn from the global generator: its losses draw nothing else there."""
        return cls(supernet, loss, train, val, draw_seed(), draw_seed(), regularisers, progress)

    @property
    def w(self) -> Tensors:
        return tuple(weight.detach() for weight in trainable_weights(self.supernet))

    @property
    def alpha(self) -> Tensors:
        return tuple(alpha.detach() for alpha in self.supernet.arch_parameters())

    def train_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        """Return the training loss, twice differentiable if the model is."""
        return self.train_pass(w, alpha)[0]

    def train_pass(self, w: Tensors, alpha: Tensors) -> tuple[Tensor, Buffers]:
        """Return the training loss and (buffer, its value after this pass) for every buffer; no buffer is changed."""
        with twice_differentiable(self.supernet):
            return self._loss("training", self.train, self.train_seed, w, alpha)

    def val_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        return self._loss("validation", self.val, self.val_seed, w, alpha)[0]

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], ...]:
        """The names of each weight and each alpha: several if modules share the parameter."""
        names = _names_by_tensor(self.supernet, _own_parameters)
        return tuple(names[id(p)][1] for p in (*trainable_weights(self.supernet), *self.supernet.arch_parameters()))

    def _loss(self, loss_name: LossName, batch: Batch, seed: int, w: Tensors, alpha: Tensors) -> tuple[Tensor, Buffers]:
        tensors = {name: tensor for names, tensor in zip(self._names, (*w, *alpha), strict=True) for name in names}
        buffers = []
        for buffer, names in _names_by_tensor(self.supernet, _own_buffers).values():
            clone = buffer.clone()
            tensors.update(dict.fromkeys(names, clone))
            buffers.append((buffer, clone))
        with seeded(seed, devices_of((batch.x, *w, *alpha))):
            # torch's tie_weights restores the wrong tensor in a module that is registered under two names. `tensors`
            # has all names of a shared tensor, so that tie_weights is not needed.
            output = functional_call(self.supernet, tensors, (batch.x,), tie_weights=False)
            loss = scalar(self.loss(output, batch.y))
        if not self.regularisers:
            return loss, buffers
        parameters = (*trainable_weights(self.supernet), *self.supernet.arch_parameters())
        by_id = {id(parameter): tensor for parameter, tensor in zip(parameters, (*w, *alpha), strict=True)}
        return penalised(loss, self.regularisers, loss_name, self.supernet, by_id, self.progress), buffers


def _own_parameters(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return module.named_parameters(recurse=False, remove_duplicate=False)


def _own_buffers(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return module.named_buffers(recurse=False, remove_duplicate=False)


def _names_by_tensor(
    module: nn.Module, own_tensors: Callable[[nn.Module], Iterable[tuple[str, Tensor]]]
) -> dict[int, tuple[Tensor, tuple[str, ...]]]:
    """Return id of a tensor -> (tensor, its names); a module that is registered at two places is counted once."""
    found: dict[int, tuple[Tensor, tuple[str, ...]]] = {}
    for path, owner in module.named_modules():
        for name, tensor in own_tensors(owner):
            names = found[id(tensor)][1] if id(tensor) in found else ()
            found[id(tensor)] = (tensor, (*names, f"{path}.{name}" if path else name))
    return found


def trainable_weights(supernet: Supernet) -> list[nn.Parameter]:
    """Return the network weights with requires_grad; the others are constants of the problem."""
    return [weight for weight in supernet.weight_parameters() if weight.requires_grad]


def scalar(loss: Tensor) -> Tensor:
    """Return `loss`; raise ModelError unless it is a 0-d tensor."""
    if loss.dim() != 0:
        raise ModelError(f"the loss must be a scalar, but got a tensor of shape {tuple(loss.shape)}")
    return loss


def leaves(tensors: Sequence[Tensor]) -> Tensors:
    """Return new leaves with requires_grad that share memory with `tensors`."""
    return tuple(tensor.detach().requires_grad_() for tensor in tensors)


def gradients(loss: Tensor, inputs: Sequence[Tensor], *, create_graph: bool = False) -> Gradients:
    """Return d loss / d inputs; None, which torch's optimisers treat unlike zero, for an input that is not used."""
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
    """Return d/d inputs <outputs, v>, the vector-Jacobian product; None for an input that is not used.

    `retain_graph`: keep the graph of `outputs` for another product.
    """
    pairs = [
        (out, vec)
        for out, vec in zip(outputs, v, strict=True)
        if out is not None and out.requires_grad and vec is not None
    ]
    present = [tensor for tensor in inputs if tensor is not None]
    if not pairs or not present:
        return (None,) * len(inputs)
    found = iter(
        torch.autograd.grad(
            [out for out, _ in pairs], present, [vec for _, vec in pairs], retain_graph=retain_graph, allow_unused=True
        ),
    )
    return tuple(None if tensor is None else next(found) for tensor in inputs)


def detached(grads: Gradients) -> Gradients:
    return tuple(None if grad is None else grad.detach() for grad in grads)


def materialise(grads: Gradients, like: Sequence[Tensor]) -> Tensors:
    """Return the detached gradients, with zeros, shaped as in `like`, instead of None."""
    return tuple(torch.zeros_like(t) if g is None else g.detach() for g, t in zip(grads, like, strict=True))


def require_registered_parameters(supernet: Supernet) -> None:
    """Raise StudyError unless every weight and alpha is a registered parameter, so that the losses depend on it."""
    registered = {id(parameter) for parameter in supernet.parameters()}
    for kind, parameters in (("weight", supernet.weight_parameters()), ("alpha", supernet.arch_parameters())):
        for index, parameter in enumerate(parameters):
            if id(parameter) not in registered:
                raise StudyError(
                    f"{kind} {index} of shape {tuple(parameter.shape)} is not a registered parameter of the supernet"
                )
