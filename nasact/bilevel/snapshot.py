"""A snapshot of a search state, restored bit for bit. Must not know strategies' methods."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasact.bilevel.randomness import devices_of, random_state, set_random_state
from nasact.bilevel.strategies.state import SearchState


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal to the bit: NaN equals NaN, 0 differs from -0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)


@dataclass(frozen=True)
class SavedTensor:
    """A tensor object with a copy of its values, so that the same object is restored."""

    tensor: Tensor
    values: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> SavedTensor:
        return cls(tensor, tensor.detach().clone())

    def restored(self) -> Tensor:
        with torch.no_grad():
            self.tensor.copy_(self.values)
        return self.tensor


@dataclass(frozen=True)
class SavedBuffer:
    """One buffer of one module; `saved` is None if the buffer is None."""

    module: nn.Module
    name: str
    path: str
    saved: SavedTensor | None


@dataclass(frozen=True)
class Snapshot:
    """A search state with everything that a step may change: tensors, optimisers, modes, random generators."""

    parameters: dict[str, SavedTensor]
    gradients: dict[str, SavedTensor | None]
    buffers: list[SavedBuffer]
    modes: list[tuple[nn.Module, bool]]
    optimisers: list[tuple[dict[Tensor, dict[str, Any]], list[dict[str, Any]]]]
    step: int
    devices: tuple[torch.device, ...]
    random: tuple[Tensor, ...]

    @classmethod
    def take(cls, state: SearchState) -> Snapshot:
        parameters = dict(state.supernet.named_parameters())
        devices = devices_of(parameters.values())
        return cls(
            parameters={name: SavedTensor.of(parameter) for name, parameter in parameters.items()},
            gradients={name: None if p.grad is None else SavedTensor.of(p.grad) for name, p in parameters.items()},
            buffers=list(_saved_buffers(state.supernet)),
            modes=[(module, module.training) for module in state.supernet.modules()],
            optimisers=[_saved_optimiser(o) for o in (state.weight_optimiser, state.alpha_optimiser)],
            step=state.step,
            devices=devices,
            random=random_state(devices),
        )

    def saved_values(self, parameter: Tensor) -> Tensor:
        """Return the values that `parameter` had when the snapshot was taken."""
        return next(saved.values for saved in self.parameters.values() if saved.tensor is parameter)

    def find_change(self, state: SearchState) -> str | None:
        """Return the name of a parameter or buffer that differs from the snapshot in any bit; None if there is none."""
        for name, parameter in state.supernet.named_parameters():
            if not same_bits(parameter, self.parameters[name].values):
                return name
        for buffer in self.buffers:
            current, saved = getattr(buffer.module, buffer.name, None), buffer.saved
            if (current is None) != (saved is None):
                return buffer.path
            if current is not None and saved is not None and not same_bits(current, saved.values):
                return buffer.path
        return None

    def restore(self, state: SearchState) -> None:
        for name, saved in self.parameters.items():
            parameter, gradient = saved.restored(), self.gradients[name]
            parameter.grad = None if gradient is None else gradient.restored()
        for buffer in self.buffers:
            setattr(buffer.module, buffer.name, None if buffer.saved is None else buffer.saved.restored())
        for module, mode in self.modes:
            module.training = mode
        for optimiser, (memory, groups) in zip(
            (state.weight_optimiser, state.alpha_optimiser), self.optimisers, strict=True
        ):
            optimiser.state.clear()
            optimiser.state.update({p: {key: _restored(value) for key, value in m.items()} for p, m in memory.items()})
            for group, options in zip(optimiser.param_groups, groups, strict=True):
                group.update(copy.deepcopy(options))
        state.step = self.step
        set_random_state(self.devices, self.random)


def _saved_buffers(supernet: nn.Module) -> Iterable[SavedBuffer]:
    for path, module in supernet.named_modules():
        # The private dictionary, because no public method lists buffers that are None. A step may set such a buffer
        # (`Mixture.drop` does), and it must be None again afterwards.
        for name, buffer in module._buffers.items():
            saved = None if buffer is None else SavedTensor.of(buffer)
            yield SavedBuffer(module, name, f"{path}.{name}" if path else name, saved)


def _saved_optimiser(
    optimiser: torch.optim.Optimizer,
) -> tuple[dict[Tensor, dict[str, Any]], list[dict[str, Any]]]:
    memory = {
        parameter: {
            key: SavedTensor.of(value) if isinstance(value, Tensor) else copy.deepcopy(value)
            for key, value in m.items()
        }
        for parameter, m in optimiser.state.items()
    }
    groups = [
        {option: copy.deepcopy(value) for option, value in group.items() if option != "params"}
        for group in optimiser.param_groups
    ]
    return memory, groups


def _restored(value: Any) -> Any:
    return value.restored() if isinstance(value, SavedTensor) else value
