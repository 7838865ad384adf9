"""Context managers and decorators around activations stay as their author wrote them."""

from __future__ import annotations

import contextlib
import functools
import threading
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from equivalence import LOG, Case, Net, Table, claims
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS, DECORATORS = Table(), Table()


@BLOCKS("relu")
class FrozenPart(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.a(x)
        return self.b(F.relu(h))


@BLOCKS("relu", learns=False)
class ActivationWithoutGradient(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = F.relu(self.a(x))
        return self.b(h)


@BLOCKS("relu", "relu", learns=False)
class PartlyWithoutGradient(Net):
    """The exponential average of a student, whose target has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        student = self.b(F.relu(self.a(x)))
        with torch.set_grad_enabled(not self.training):
            target = self.a(F.relu(x) * 2)
        return student - target


@BLOCKS("relu", "tanh", learns=False)
class GradientEnabledInside(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = F.relu(self.a(x))
            with torch.enable_grad():
                return self.b(torch.tanh(self.a(h)))


@BLOCKS("relu")
class InferenceMode(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            h = self.a(x)
        return self.b(F.relu(h.clone()))


@BLOCKS("relu")
class AutocastBlock(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = F.relu(self.a(x))
        return self.b(h.float())


@BLOCKS("gelu", "relu")
class AutocastTurnedOff(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = F.gelu(self.a(x))
            with torch.autocast("cpu", enabled=False):
                return self.b(F.relu(h.float() - 0.1))


@BLOCKS("relu")
class TwoManagers(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16), contextlib.nullcontext() as nothing:
            h = F.relu(self.a(x)) if nothing is None else x
        return self.b(h.to(x.dtype))


@contextlib.contextmanager
def logged(name: str) -> Iterator[None]:
    LOG.append(("enter", name))
    yield
    LOG.append(("exit", name))


@BLOCKS("relu")
class ManagerOfOnesOwn(Net):
    def forward(self, x: Tensor) -> Tensor:
        with logged("first"):
            h = F.relu(self.a(x))
        return self.b(h)


@BLOCKS("relu")
class ManagerKeptInAnAttribute(Net):
    def __init__(self) -> None:
        super().__init__()
        self.block: Callable[[], Any] = torch.no_grad

    def forward(self, x: Tensor) -> Tensor:
        with self.block():
            h = self.a(x)
        return self.b(F.relu(h))


@BLOCKS("relu")
class RecordedBlock(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.profiler.record_function("block"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            h = F.relu(self.a(x))
        return self.b(h)


@BLOCKS("relu")
class ForkedRandomState(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            noise = torch.randn_like(x)
        return self.b(F.relu(self.a(x + noise))) + torch.rand_like(x)


@BLOCKS("relu")
class ExceptionLeavesTheBlock(Net):
    def forward(self, x: Tensor) -> Tensor:
        with contextlib.suppress(ValueError):
            if self.training:
                raise ValueError("training")
            x = self.a(x)
        return self.b(F.relu(x))


LOCK = threading.Lock()


@BLOCKS("relu")
class LockedBlock(Net):
    def forward(self, x: Tensor) -> Tensor:
        with LOCK:
            h = F.relu(self.a(x))
        return self.b(h)


@BLOCKS("relu")
class SavedTensorHooks(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            h = F.relu(self.a(x))
        return self.b(h)


def doubled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(forward)
    def wrapper(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        LOG.append(type(self).__name__)
        return 2 * forward(self, *args, **kwargs)

    return wrapper


def scaled(factor: float) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def decorate(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(forward)
        def wrapper(*args: Any, **kwargs: Any) -> Tensor:
            return factor * forward(*args, **kwargs)

        return wrapper

    return decorate


def anonymous(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrapper(self: nn.Module, x: Tensor) -> Tensor:
        return forward(self, x + 1)

    return wrapper


class Wrapped:
    """A decorator that is a descriptor, and holds the function as an attribute."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward

    def __get__(self, owner: Any, kind: Any) -> Callable[..., Tensor]:
        return functools.partial(self.forward, owner)


@DECORATORS("relu", learns=False)
class NoGradForward(Net):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS("relu", learns=False)
class NoGradMethod(Net):
    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.a(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.features(x))


@DECORATORS("relu", "tanh", learns=False)
class NoGradOutsideGradInside(Net):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.differentiable(F.relu(self.a(x)))

    @torch.enable_grad()
    def differentiable(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


@DECORATORS("relu")
class AutocastForward(Net):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS("relu")
class WrapperOfOnesOwn(Net):
    @doubled
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS("relu")
class WrapperWithAnArgument(Net):
    @scaled(0.5)
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS("relu", learns=False)
class StackedWrappers(Net):
    @doubled
    @torch.no_grad()
    @scaled(3.0)
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS("relu")
class WrappedMethod(Net):
    @doubled
    def hidden(self, x: Tensor, *, shift: float = 0.0) -> Tensor:
        return F.relu(self.a(x) + shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.hidden(x, shift=0.1))


@DECORATORS("relu", verdict="either", reason="decorat|anonymous|wrapper")
class WrapperWithoutWraps(Net):
    @anonymous
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS(verdict="refused", reason=r"forward.*(decorat|Wrapped|hides)")
class DescriptorAsDecorator(Net):
    @Wrapped
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS("relu")
class MarkedOnly(Net):
    @typing.no_type_check
    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@DECORATORS("relu")
class CachedHelper(Net):
    @staticmethod
    @functools.lru_cache(maxsize=4)
    def scale(width: int) -> float:
        return width**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)) * self.scale(x.shape[-1]))


@BLOCKS.parametrize()
@claims
def test_context_managers(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@DECORATORS.parametrize()
@claims
def test_decorators(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert [
        len(table.cases)
        for table in (
            BLOCKS,
            DECORATORS,
        )
    ] == [15, 12]
