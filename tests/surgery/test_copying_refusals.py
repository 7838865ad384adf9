"""A model of which a copy would compute with the original's weights, or that cannot be copied, is refused by name."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from copied_models import CallsModule, Net, assert_equal, results
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import SurgeryError
from nasact.supernet import relax
from nasact.surgery.copying import check_model, copy_model


def put(net: Net, forward: Any) -> Net:
    net.forward = forward
    return net


def lambda_forward() -> nn.Module:
    net = Net()
    return put(net, lambda x: net.b(F.gelu(net.a(x))))


def closure_over_the_old_forward() -> nn.Module:
    net = nn.Sequential(Net(), nn.Tanh())
    old = net[0].forward
    net[0].forward = lambda x: old(x * 2)
    return net


def as_in_a_script() -> nn.Module:
    scope: dict[str, Any] = {"net": Net()}
    exec("old = net.forward\nnet.forward = lambda x: old(x * 2)", scope)
    net: nn.Module = scope["net"]
    return net


def default_argument() -> nn.Module:
    net = Net()
    return put(net, lambda x, layer=net.b: layer(x))


def module_in_a_list() -> nn.Module:
    net = Net()
    layers = [("a", net.a), ("b", net.b)]
    return put(net, lambda x: functools.reduce(lambda y, layer: layer[1](y), layers, x))


def function_behind_functions() -> nn.Module:
    net = Net()
    inner = functools.partial(torch.add, other=net.b.bias)
    return put(net, functools.wraps(Net.forward)(lambda x: inner(x)))


def object_in_a_closure() -> nn.Module:
    net = Net()
    called = CallsModule(net)
    return put(net, lambda x: called(x))


def outer_container_in_a_closure() -> nn.Module:
    net = Net()
    layers = nn.Sequential(net.a, nn.ReLU(), net.b)
    return put(net, lambda x: layers(x))


def cached_method() -> nn.Module:
    net = Net()
    net.cached = functools.lru_cache(net.a.forward)
    return net


def hook_of_another_module() -> nn.Module:
    net = Net()
    net.a.register_forward_hook(lambda module, args, output: net.b(output))
    return net


def hook_with_a_view_of_a_parameter() -> nn.Module:
    net = Net()
    view = net.b.weight.detach().t()
    net.a.register_forward_pre_hook(lambda module, args: (args[0] @ view,))
    return net


def gradient_hook() -> nn.Module:
    net = Net()
    weight = net.a.weight
    net.a.weight.register_hook(lambda gradient: gradient + weight)
    return net


def function_in_a_list() -> nn.Module:
    net = Net()
    net.steps = [{"first": lambda x: net.a(x)}]
    return net


def weak_reference() -> nn.Module:
    net = Net()
    net.other = weakref.ref(net.b)
    return net


class UsesAGlobal(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.helper(x)

    def helper(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(GLOBALS["layer"](x))
        return y


GLOBALS: dict[str, nn.Module] = {}


def global_name() -> nn.Module:
    net = UsesAGlobal()
    GLOBALS["layer"] = net.a
    return net


def generator_attribute() -> nn.Module:
    net = Net()
    net.b.numbers = (i for i in range(3))
    return net


def lock_attribute() -> nn.Module:
    net = Net()
    net.lock = threading.Lock()
    return net


class ReturnsItself(Net):
    def __deepcopy__(self, memo: dict[int, Any]) -> ReturnsItself:
        return self


class RaisesWhenCopied(Net):
    def __deepcopy__(self, memo: dict[int, Any]) -> RaisesWhenCopied:
        raise RuntimeError("not\ntoday")


WEIGHTS = "a copy would compute with the original's weights."
PUT = "its forward was put on the instance as a function that remembers"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "lambda_forward": (lambda_forward, f"the model: {PUT} the module itself: {WEIGHTS} Bind it with types.MethodType"),
    "old_forward": (closure_over_the_old_forward, f"'0': {PUT} the module itself: {WEIGHTS}"),
    "as_in_a_script": (as_in_a_script, f"the model: {PUT} the module itself"),
    "default_argument": (default_argument, f"the model: {PUT} another module ('b')"),
    "module_in_a_list": (module_in_a_list, f"the model: {PUT} another module ('a')"),
    "behind_functions": (function_behind_functions, f"the model: {PUT} the tensor 'b.bias'"),
    "object_in_a_closure": (object_in_a_closure, f"the model: {PUT} the module itself"),
    "outer_container": (outer_container_in_a_closure, f"the model: {PUT} another module ('a')"),
    "cached_method": (cached_method, "the model: 'cached' holds a function that remembers another module ('a')"),
    "hook": (hook_of_another_module, f"'a': a hook remembers another module (the model): {WEIGHTS}"),
    "hook_with_a_view": (hook_with_a_view_of_a_parameter, "'a': a hook remembers the tensor 'b.weight'"),
    "gradient_hook": (gradient_hook, "'a': 'weight' holds a function that remembers the tensor 'a.weight'"),
    "function_in_a_list": (function_in_a_list, "the model: 'steps' holds a function that remembers the module itself"),
    "weak_reference": (weak_reference, "the model: its attribute 'other' holds a weak reference to another module"),
    "global_name": (global_name, "the model: UsesAGlobal.helper uses another module ('a') through a global name"),
    "generator": (generator_attribute, "'b': its attribute 'numbers' cannot be copied (TypeError: cannot pickle"),
    "lock": (lock_attribute, "the model: its attribute 'lock' cannot be copied (TypeError: cannot pickle"),
    "itself": (ReturnsItself, "ReturnsItself.__deepcopy__ returns it itself: pass inplace=True"),
    "raises": (RaisesWhenCopied, "RaisesWhenCopied cannot be copied (RuntimeError: not today): pass inplace=True"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4), nn.ReLU()), "'0': it is a lazy module (LazyLinear) whose shapes"),
    "lazy_buffers": (lambda: nn.LazyBatchNorm1d(affine=False), "the model: it is a lazy module (LazyBatchNorm1d)"),
    "compiled": (
        lambda: torch.compile(Net(), backend="eager"),
        "the model: it is wrapped by torch.compile: pass the model before torch.compile",
    ),
    "compiled_part": (
        lambda: nn.Sequential(torch.compile(nn.ReLU(), backend="eager")),
        "'0': it is wrapped by torch.compile: use its method compile() instead",
    ),
    "class": (lambda: Net, "expected a model (an nn.Module), but got the class Net: pass an instance of it"),
    "function": (lambda: F.relu, "expected a torch.nn.Module, but got function"),
}


def test_there_are_many_kinds_of_refusals() -> None:
    assert len(REFUSED) >= 25


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_copied_is_refused_in_one_line_that_names_the_place(name: str) -> None:
    make, message = REFUSED[name]
    model = make()
    with pytest.raises(SurgeryError) as caught:
        copy_model(model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lazy", "compiled", "class"])
def test_a_model_in_an_impossible_state_is_refused_in_place_too(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(SurgeryError) as caught:
        relax(make(), inplace=True)
    assert message in str(caught.value)
    with pytest.raises(SurgeryError):
        check_model(make())


def test_a_wrapper_for_distributed_training_is_refused(process_group: None) -> None:
    model = nn.Sequential(nn.parallel.DistributedDataParallel(Net()))
    with pytest.raises(SurgeryError, match=r"'0': it is wrapped for distributed training \(DistributedDataParallel\)"):
        copy_model(model)


@pytest.fixture(name="process_group")
def _process_group(tmp_path: Any) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


# ---- functions that remember no weight -------------------------------------------------------------------------------


def test_hooks_that_record_and_functions_of_other_models_are_allowed() -> None:
    net, recorder, teacher = Net(), Recorder(), Net()
    by_module: dict[nn.Module, Tensor] = {}
    modules: list[nn.Module] = []
    net.a.register_forward_hook(recorder.make_hook("a"))
    net.a.register_forward_hook(lambda module, args, output: by_module.__setitem__(module, output))
    net.b.register_forward_hook(lambda module, args, output: modules.append(module))
    net.b.register_forward_hook(lambda module, args, output: output + teacher(output).detach())
    recorder.model = net
    results(net, True)
    modules.clear()
    by_module.clear()
    copied = copy_model(net)
    assert_equal(results(copied, True), results(net, True))
    assert modules == [copied.b, net.b]
    assert len(recorder.outputs) == 3


class Recorder:
    """Extracts features: its hooks store outputs, and it also holds the model."""

    def __init__(self) -> None:
        self.model: nn.Module | None = None
        self.outputs: list[tuple[str, Tensor]] = []

    def make_hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            self.outputs.append((name, output.detach()))

        return hook
