"""Kernels under torch.compile, torch.export, ONNX and torch.jit.trace.

Compiled code calls the table; an exported program or file holds only plain operators.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from kernel_nets import KERNELS, LEVELS, Net, all_gradients, distance, inputs, reference_copy, supernet
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx import GraphModule

from nasact.export.export import silence_exporters
from nasact.mixture import FrozenMixture
from nasact.supernet import Supernet, derive, relax

every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_level = pytest.mark.parametrize("level", LEVELS)
# warnings of torch about its own code
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(autouse=True)
def _reset_compiler() -> None:
    torch._dynamo.reset()


# ---- torch.compile --------------------------------------------------------------------------------------------------


def called_functions(net: nn.Module, x: Tensor) -> list[str]:
    """The functions that the graph of the whole network calls; a graph break would be an error."""
    found: list[str] = []

    def record(graph: GraphModule, _: Any) -> Callable[..., Any]:
        found.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch.compile(net, fullgraph=True, backend=record)(x)
    return found


@every_level
@every_kernel
def test_the_graph_calls_the_table_or_the_functions(kernel: str, level: str) -> None:
    found = called_functions(supernet(kernel, level), inputs())
    assert found.count("nasact.mix") == (0 if kernel == "fused" else 2)


def check_compiled(net: Supernet, backend: str) -> None:
    compiled, exact = torch.compile(net, fullgraph=True, dynamic=True, backend=backend), reference_copy(net)
    for batch in (4, 7):
        assert distance(all_gradients(compiled, inputs(batch)), all_gradients(exact, inputs(batch).double())) < 1e-4
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, (
        "another batch size must not compile another graph"
    )


@pytest.mark.parametrize(
    ("kernel", "level"),
    # only one graph in the fast tests: the compiler takes most of the time
    [
        ("auto", "channel"),
        *(pytest.param("auto", level, marks=pytest.mark.slow) for level in LEVELS if level != "channel"),
        pytest.param("fused", "channel", marks=pytest.mark.slow),
    ],
)
def test_a_compiled_supernet_computes_and_learns_the_same(kernel: str, level: str) -> None:
    torch._dynamo.utils.counters.clear()
    check_compiled(supernet(kernel, level), "aot_eager")


@pytest.mark.slow
@every_level
def test_a_supernet_compiled_by_inductor_computes_and_learns_the_same(level: str) -> None:
    torch._dynamo.utils.counters.clear()
    check_compiled(supernet("auto", level), "inductor")


@every_level
def test_the_custom_ops_pass_torch_s_opcheck(level: str) -> None:
    shape = {"layer": (), "channel": (4,), "neuron": (4, 6, 6)}[level]
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(3, *shape).movedim(0, -1).requires_grad_()  # dense but not contiguous
    static = ("relu,tanh,gelu", [-32.0, 32.0, 1e-6], 1025, level, 1)
    torch.library.opcheck(torch.ops.nasact.mix.default, (x, weights, *static), atol=1e-5, rtol=1e-5)
    g = torch.randn(2, 4, 6, 6)
    torch.library.opcheck(torch.ops.nasact.mix_backward.default, (x, weights, g, *static), atol=1e-5, rtol=1e-5)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.act(self.first(x)))
        return y


def small() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return relax(Small(), ("relu", "tanh", "gelu", "prelu")), torch.randn(5, 4)


def dual(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(call(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
        assert tangent is not None
        return tangent


def gradient_of_gradient(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(found.square().sum(), x)[0]


Call = Callable[[Tensor], Tensor]
TRANSFORMS: dict[str, Callable[[Call], Call]] = {
    "jvp": lambda call: lambda x: torch.func.jvp(call, (x,), (torch.ones_like(x),))[1],
    "grad": lambda call: torch.func.grad(lambda x: call(x).square().sum()),
    "vmap": lambda call: torch.func.vmap(lambda one: call(one[None])[0]),
    "jacrev": lambda call: torch.func.jacrev(lambda x: call(x)[0]),
    "dual": lambda call: lambda x: dual(call, x),
}


def test_the_transforms_are_found() -> None:
    assert len(TRANSFORMS) >= 5


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_compiled_transform_gives_the_reference_s_numbers(transform: str, backend: str) -> None:
    net, x = small()
    true = TRANSFORMS[transform](reference_copy(net))(x.double())
    assert float(true.detach().abs().max()) > 1e-2
    assert distance(torch.compile(TRANSFORMS[transform](net), backend=backend)(x), true) < 1e-4


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_of_a_compiled_network_gives_the_reference_s_numbers(transform: str, backend: str) -> None:
    net, x = small()
    compiled = torch.compile(net, backend=backend)
    compiled(x)  # compile before the transform
    true = TRANSFORMS[transform](reference_copy(net))(x.double())
    assert distance(TRANSFORMS[transform](compiled)(x), true) < 1e-4


def test_a_second_derivative_of_compiled_code_is_correct_or_refused() -> None:
    net, x = small()
    true = gradient_of_gradient(reference_copy(net), x.double())
    assert distance(gradient_of_gradient(torch.compile(net, backend="eager"), x), true) < 1e-4
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        gradient_of_gradient(torch.compile(net, backend="aot_eager"), x)


# ---- exported programs and files ------------------------------------------------------------------------------------


def networks(kernel: str, level: str) -> dict[str, nn.Module]:
    net = supernet(kernel, level)
    derived = derive(net, top_k=3).apply(Net())
    assert sum(isinstance(module, FrozenMixture) for module in derived.modules()) == 2
    return {"supernet": net.eval(), "derived": derived.eval()}


def exported(network: nn.Module, **options: Any) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=1)}
    shapes = ((batch,),) if isinstance(network, Supernet) else (batch,)  # its forward takes *args
    with torch.no_grad():
        return torch.export.export(network, (inputs(3),), dynamic_shapes=shapes, **options)


@pytest.mark.parametrize(
    ("kernel", "level", "strict"),
    [
        *(("auto", level, False) for level in LEVELS),
        ("auto", "layer", True),
        ("table", "channel", True),
        ("fused", "channel", False),
    ],
)
def test_an_exported_network_holds_only_aten_operators(kernel: str, level: str, strict: bool) -> None:
    for name, network in networks(kernel, level).items():
        program = exported(network, strict=strict)
        calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert calls
        assert {target.namespace for target in calls if target is not getitem} == {"aten"}, name
        with torch.no_grad():
            assert distance(program.module()(inputs(4)), network(inputs(4)).double()) < 1e-5, name


@pytest.mark.parametrize("level", ["layer", "channel"])
def test_an_onnx_file_holds_only_standard_operators(level: str, tmp_path: Path) -> None:
    for name, network in networks("auto", level).items():
        path = tmp_path / f"{name}.onnx"
        with silence_exporters():
            program = torch.onnx.export(exported(network), (), dynamo=True, verbose=False)
        assert program is not None
        program.save(path, external_data=False)
        model = onnx.load(path)
        assert {node.domain for node in model.graph.node} == {""}, name
        assert not model.functions
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in (1, 6):
            (found,) = session.run(None, {session.get_inputs()[0].name: inputs(batch).numpy()})
            assert distance(torch.from_numpy(found), network(inputs(batch)).detach().double()) < 1e-5, name


@pytest.mark.filterwarnings("ignore:`torch.jit.trace.*deprecated:FutureWarning")
@every_kernel
def test_a_traced_network_holds_only_aten_operators(kernel: str) -> None:
    network = supernet(kernel).eval()
    traced = torch.jit.trace(network, (inputs(3),), check_trace=False)
    assert {node.kind().split("::")[0] for node in traced.inlined_graph.nodes()} <= {"aten", "prim"}
    assert distance(traced(inputs(4)), network(inputs(4)).detach().double()) < 1e-5
