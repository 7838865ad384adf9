"""A search state put aside and put back, bit for bit. Knows no strategy."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasact.bilevel.randomness import devices_of, random_state, set_random_state
from nasact.bilevel.strategies.state import SearchState


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal to the bit: NaN equals NaN, 0 is not -0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)


@dataclass(frozen=True)
class Kept:
    """A tensor, the object and its numbers, so that both can be put back."""

    tensor: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Kept:
        return cls(tensor, tensor.detach().clone())

    def restored(self) -> Tensor:
        with torch.no_grad():
            self.tensor.copy_(self.numbers)
        return self.tensor


@dataclass(frozen=True)
class Snapshot:
    """A search state with everything that a step may change: tensors, optimisers, modes, random generators."""

    parameters: dict[str, Kept]
    gradients: dict[str, Kept | None]
    buffers: list[tuple[nn.Module, str, str, Kept | None]]
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
            parameters={name: Kept.of(parameter) for name, parameter in parameters.items()},
            gradients={name: None if p.grad is None else Kept.of(p.grad) for name, p in parameters.items()},
            buffers=[
                (module, name, f"{path}.{name}" if path else name, None if buffer is None else Kept.of(buffer))
                for path, module in state.supernet.named_modules()
                for name, buffer in module._buffers.items()
            ],
            modes=[(module, module.training) for module in state.supernet.modules()],
            optimisers=[_keep_optimiser(o) for o in (state.weight_optimiser, state.alpha_optimiser)],
            step=state.step,
            devices=devices,
            random=random_state(devices),
        )

    def kept(self, parameter: Tensor) -> Tensor:
        """The numbers that `parameter` had."""
        return next(kept.numbers for kept in self.parameters.values() if kept.tensor is parameter)

    def changed(self, state: SearchState) -> str | None:
        """The name of a parameter or buffer that is not what it was, to the bit."""
        for name, parameter in state.supernet.named_parameters():
            if not same_bits(parameter, self.parameters[name].numbers):
                return name
        for module, name, path, kept in self.buffers:
            buffer = module._buffers.get(name)
            if (buffer is None) != (kept is None):
                return path
            if buffer is not None and kept is not None and not same_bits(buffer, kept.numbers):
                return path
        return None

    def restore(self, state: SearchState) -> None:
        for name, kept in self.parameters.items():
            parameter, gradient = kept.restored(), self.gradients[name]
            parameter.grad = None if gradient is None else gradient.restored()
        for module, name, _, buffer in self.buffers:
            module._buffers[name] = None if buffer is None else buffer.restored()
        for module, mode in self.modes:
            module.training = mode
        for optimiser, (memory, groups) in zip(
            (state.weight_optimiser, state.alpha_optimiser), self.optimisers, strict=True
        ):
            optimiser.state.clear()
            optimiser.state.update({p: {key: _put_back(value) for key, value in m.items()} for p, m in memory.items()})
            for group, options in zip(optimiser.param_groups, groups, strict=True):
                group.update(copy.deepcopy(options))
        state.step = self.step
        set_random_state(self.devices, self.random)


def _keep_optimiser(
    optimiser: torch.optim.Optimizer,
) -> tuple[dict[Tensor, dict[str, Any]], list[dict[str, Any]]]:
    memory = {
        parameter: {
            key: Kept.of(value) if isinstance(value, Tensor) else copy.deepcopy(value) for key, value in m.items()
        }
        for parameter, m in optimiser.state.items()
    }
    groups = [
        {option: copy.deepcopy(value) for option, value in group.items() if option != "params"}
        for group in optimiser.param_groups
    ]
    return memory, groups


def _put_back(value: Any) -> Any:
    return value.restored() if isinstance(value, Kept) else value
