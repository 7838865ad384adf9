"""torch's random generators: seeded for one loss, saved and restored. Must not know losses or models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

CPU = torch.device("cpu")


def devices_of(tensors: Iterable[Tensor]) -> tuple[torch.device, ...]:
    """Return the CPU first (its generator draws the seeds), then every other device that holds one of `tensors`."""
    return tuple(dict.fromkeys((CPU, *(tensor.device for tensor in tensors))))


def random_state(devices: Sequence[torch.device]) -> tuple[Tensor, ...]:
    """Return the states of the generators, one per device."""
    return tuple(_get(device) for device in devices)


def set_random_state(devices: Sequence[torch.device], states: Sequence[Tensor]) -> None:
    for device, state in zip(devices, states, strict=True):
        _set(device, state)


def draw_seed() -> int:
    """Return a seed drawn from the CPU's generator, so that `torch.manual_seed` decides it too."""
    return int(torch.randint(2**62, ()).item())


@contextmanager
def seeded(seed: int, devices: Sequence[torch.device]) -> Iterator[None]:
    """Inside the block the generators start from `seed`; afterwards their earlier states are restored."""
    before = random_state(devices)
    try:
        for device in devices:
            _seed(device, seed)
        yield
    finally:
        set_random_state(devices, before)


def _get(device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.get_rng_state()
    if device.type == "mps":
        return torch.mps.get_rng_state()
    state: Tensor = torch.get_device_module(device).get_rng_state(device)
    return state


def _set(device: torch.device, state: Tensor) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)


def _seed(device: torch.device, seed: int) -> None:
    # Not torch.manual_seed: it would also seed devices whose state is not restored.
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        module = torch.get_device_module(device)
        with module.device(device):
            module.manual_seed(seed)
