"""The audit of surgery: passes of a model with markers at its sites, which find activations that no site covers.

Reading a model's source shows where activations are. The audit counts which of them are called, on what and for what.
It needs an example input. It knows the table of torch's activations, but nothing of how sites are found.
"""

from __future__ import annotations

import copy
import functools
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.random import mtrand
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nasact.errors import SurgeryError, one_line
from nasact.surgery import torch_activations
from nasact.surgery.call_place import find_place
from nasact.surgery.data_flow import Call, DataFlow, Source, Use, tensors_in, torch_call
from nasact.surgery.relu_spellings import ReluSpelling

# further names, and names of the operators that TorchScript calls
_OTHER_NAMES = {
    "special_expit": "sigmoid",
    "expit": "sigmoid",
    "log_sigmoid": "logsigmoid",
    "log_sigmoid_forward": "logsigmoid",
    "rrelu_with_noise": "rrelu",
    "prelu_kernel": "prelu",
}
_NAMES = torch_activations.CALL_NAMES | {"prelu", "rrelu", "threshold"}


@dataclass(frozen=True)
class MissedCall:
    """An activation that was applied outside of every site.

    `activation`: its name in torch, e.g. "relu". `file`, `line`, `function`: the author's place, the innermost frame
    outside torch; ("", 0, "") if only torch's own modules were running. `module`: path of the innermost running module,
    "" for the model itself. `argument`: what its input depends on.
    """

    activation: str
    file: str
    line: int
    function: str
    module: str
    argument: Source = "data"


@dataclass(frozen=True)
class Audit:
    """What a pass in eval mode and a pass in train mode have shown, by site name; a site that is not called is absent.

    `reached`: number of calls. `uses`: for what the results are first used. `arguments`: what the inputs depend on.
    `shapes`: of the inputs, call by call, the eval pass first. `missed`: activations outside of every site, each place
    once. `train_error`: why the train pass failed, in which case only the eval pass counts; else "".
    """

    reached: Mapping[str, int]
    uses: Mapping[str, frozenset[Use]]
    arguments: Mapping[str, frozenset[Source]]
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]
    missed: tuple[MissedCall, ...]
    train_error: str = ""


class Marker(nn.Module):
    """A module for a site that computes the model's own activation, and reports each call to the running audit."""

    def __init__(self, site: str, original: nn.Module) -> None:
        super().__init__()
        self.site = site
        self.original = original
        self.observer: _Observer | None = None

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor
        # surgery copies the hooks of the original to the module at its site, so that they are not called here
        if self.observer is None:
            result = self.original.forward(x)
            return result
        with self.observer.paused():
            self.observer.enter_site(self.site, x)
            result = self.original.forward(x)
            self.observer.flow.leave_site(self.site, x, result)
        return result


def markers(originals: Mapping[str, nn.Module]) -> dict[str, Marker]:
    """A marker for each site, to be installed; `originals`: the model's own activation of each site, out of place."""
    return {site: Marker(site, original) for site, original in originals.items()}


def run_audit(
    model: nn.Module, markers: Mapping[str, Marker], example: Tensor | tuple[Any, ...] | Mapping[str, Any] | list[Any]
) -> Audit:
    """Run `model`, in which `markers` are installed, in eval mode and in train mode, and report what the markers saw.

    `example`: the input; a tuple holds positional arguments, a mapping holds keyword arguments. It is not changed.
    `model` must be a copy that is thrown away: its buffers change. Its modes, all random states and the grad mode are
    restored. No gradient is computed. Raises SurgeryError if the model does not run on the example in eval mode. A
    train pass that fails (batch norm of one value) is left out.
    """
    modes = [(module, module.training) for module in model.modules()]
    # tensors that are plain attributes before the first pass; later they may hold data
    constants = [tensor for module in model.modules() for tensor in tensors_in(vars(module))]
    try:
        with _random_states_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiler_was_loaded = _compiler_is_loaded()
            audit = _run_both_passes(model, markers, example, constants)
            if _compiler_is_loaded() and not compiler_was_loaded:  # by the model, whose first pass was compiled
                audit = _run_both_passes(model, markers, example, constants)
    finally:
        for module, training in modes:
            module.training = training
    return audit


@dataclass(eq=False)
class _Observer:
    """What one pass has shown so far. `paths`: module path by id. `pauses`: while positive, no call is observed."""

    flow: DataFlow
    paths: Mapping[int, str]
    reached: dict[str, int] = field(default_factory=dict)
    arguments: dict[str, set[Source]] = field(default_factory=dict)
    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    missed: dict[MissedCall, None] = field(default_factory=dict)
    pauses: int = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While a site or an observed call runs, the calls in it are not observed."""
        self.pauses += 1
        try:
            yield
        finally:
            self.pauses -= 1

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Any:
        """Call a torch function for one of the modes below, and record the call."""
        kwargs = kwargs or {}
        if self.pauses:
            return function(*args, **kwargs)
        if type(function).__module__.startswith("torch._higher_order_ops") and not torch.is_grad_enabled():
            # torch.cond and the like; with autograd they trace their branches instead of calling them
            args = tuple(self.observed(each) if callable(each) else each for each in args)
        with self.paused():
            call = torch_call(function, args, kwargs)
            with torch.no_grad():
                spelling = ReluSpelling(call)
            result = function(*args, **kwargs)
            with torch.no_grad():
                activation, spelt = _activation_name(call), spelling.name(result)
                if activation or spelt:
                    self.check_missed(call, activation or spelt or "", only_of_data=activation is None)
                self.flow.observe(call, result)
        return result

    def enter_site(self, site: str, x: Tensor) -> None:
        self.reached[site] = self.reached.get(site, 0) + 1
        self.arguments.setdefault(site, set()).add(self.flow.source(x))
        self.shapes.setdefault(site, []).append(tuple(x.shape))
        self.flow.enter_site(x)

    def observed(self, branch: Callable[..., Any]) -> Callable[..., Any]:
        """`branch`, an argument of a call during which the observer is paused, with its own calls observed."""

        @functools.wraps(branch)
        def run_branch(*args: Any, **kwargs: Any) -> Any:
            pauses, self.pauses = self.pauses, 0
            try:
                with _FunctionMode(self), _OperatorMode(self):
                    return branch(*args, **kwargs)
            finally:
                self.pauses = pauses

        return run_branch

    def check_missed(self, call: Call, activation: str, *, only_of_data: bool) -> None:
        """Add a call of an activation outside of every site, unless it is none of the model's."""
        inputs = [each for each in tensors_in((call.args, call.kwargs)) if each.is_floating_point()]
        if not inputs:
            return
        sources = [self.flow.source(each) for each in inputs]
        argument = "data" if "data" in sources else sources[0]
        place = find_place(self.paths, _call_model.__code__)
        if place is not None and (argument == "data" or not only_of_data):
            self.missed.setdefault(MissedCall(activation, *place, argument))


class _FunctionMode(TorchFunctionMode):
    """Reports every call of a torch function from Python to an observer."""

    def __init__(self, observer: _Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.observer.run(func, args, kwargs)


class _OperatorMode(TorchDispatchMode):
    """Reports the operators that run outside of such calls to an observer: those of TorchScript and of C++ code."""

    supports_higher_order_operators = True  # else torch.cond and flex_attention fail under the mode

    def __init__(self, observer: _Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.observer.run(func, args, kwargs)


def _activation_name(call: Call) -> str | None:
    """The torch name of the activation that a call applies, whichever way it is spelt; None if it applies none."""
    name = _OTHER_NAMES.get(call.name, call.name)
    return name if name in _NAMES else None


def _run_both_passes(
    model: nn.Module, markers: Mapping[str, Marker], example: object, constants: list[Tensor]
) -> Audit:
    # compiled functions run as they are written: the code that the compiler makes has no author's lines
    with torch.compiler.set_stance("force_eager") if _compiler_is_loaded() else nullcontext():
        model.eval()
        evaluated = _run_eval(model, markers, example, constants)
        model.train()
        trained, failure = _run_pass(model, markers, example, constants, gradients=True)
    return _report([evaluated] if failure else [evaluated, trained], _reason(failure) if failure else "")


def _run_eval(model: nn.Module, markers: Mapping[str, Marker], example: object, constants: list[Tensor]) -> _Observer:
    """The pass in eval mode: without autograd or, for a model that differentiates in its forward, with it."""
    observer, failure = _run_pass(model, markers, example, constants, gradients=False)
    if failure is None:
        return observer
    observer, second_failure = _run_pass(model, markers, example, constants, gradients=True)
    if second_failure is None:
        return observer
    raise SurgeryError(
        f"{type(model).__name__} does not run on the example input: {_reason(failure)}. "
        "Check example_input: its shapes, dtypes and device, and a tuple or a dict for several arguments"
    ) from failure


def _run_pass(
    model: nn.Module, markers: Mapping[str, Marker], example: object, constants: list[Tensor], *, gradients: bool
) -> tuple[_Observer, Exception | None]:
    """What one pass shows, and its error if it fails."""
    inputs = _copied(example)
    flow = DataFlow(model, inputs, constants)
    # a module that has several paths gets the first of them
    paths = {id(module): path for path, module in model.named_modules()}
    observer = _Observer(flow, paths)
    for marker in markers.values():
        marker.observer = observer
    try:
        with torch.set_grad_enabled(gradients), _FunctionMode(observer), _OperatorMode(observer):
            result = _call_model(model, inputs)
        flow.leave_model(result)
    except Exception as failure:
        return observer, failure
    finally:
        for marker in markers.values():
            marker.observer = None
    return observer, None


def _call_model(model: nn.Module, inputs: object) -> Any:
    if isinstance(inputs, tuple):
        return model(*inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def _copied(value: Any) -> Any:
    """A copy of an example input: new tensors, outside of any graph."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_copied, value))
    if isinstance(value, tuple | list):
        return type(value)(map(_copied, value))
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return copy.deepcopy(value)


def _report(passes: list[_Observer], train_error: str) -> Audit:
    sites = list(dict.fromkeys(site for each in passes for site in each.reached))
    return Audit(
        reached={site: sum(each.reached.get(site, 0) for each in passes) for site in sites},
        uses={site: frozenset(use for each in passes for use in each.flow.uses.get(site, ())) for site in sites},
        arguments={site: frozenset(kind for each in passes for kind in each.arguments.get(site, ())) for site in sites},
        shapes={site: tuple(shape for each in passes for shape in each.shapes.get(site, ())) for site in sites},
        missed=tuple(dict.fromkeys(call for each in passes for call in each.missed)),
        train_error=train_error,
    )


def _reason(failure: Exception) -> str:
    """The type and the first line of an error's message."""
    lines = str(failure).strip().splitlines()
    return one_line(f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__, 300)


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Restore the random states of python, numpy and torch at the end."""
    python, numpy, cpu = random.getstate(), mtrand.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        mtrand.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def _compiler_is_loaded() -> bool:
    """Whether anything may be compiled. To load the compiler takes a second."""
    return "torch._dynamo" in sys.modules
