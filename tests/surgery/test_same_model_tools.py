"""torch's tools take a supernet and a derived network as they take the model: compile, export, pickle, vmap."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tool_nets import MAKERS, NETS, SITES, inputs, make_derived, make_net, make_supernet
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nasact.supernet import Genotype, find_sites, relax

X = inputs()
HERE = Path(__file__).parent


@pytest.fixture(name="net", params=[(kind, name) for kind in MAKERS for name in NETS], ids=" ".join)
def _net(request: pytest.FixtureRequest) -> nn.Module:
    kind, name = request.param
    return MAKERS[kind](name)


@pytest.fixture(name="fresh_dynamo")
def _fresh_dynamo() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def gradients(net: nn.Module, call: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
    net.zero_grad()
    call(X).square().sum().backward()
    return [None if p.grad is None else p.grad.clone() for p in net.parameters()]


def assert_same_gradients(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    torch.testing.assert_close(found, expected)
    assert any(g is not None and bool((g != 0).any()) for g in expected)


def test_the_networks_have_their_sites() -> None:
    assert {name: len(find_sites(make_net(name)).sites) for name in NETS} == SITES
    for name in NETS:
        assert not torch.equal(make_supernet(name)(X), make_net(name)(X))
        assert not torch.equal(make_derived(name)(X), make_net(name)(X))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_without_a_graph_break_and_once(net: nn.Module, backend: str) -> None:
    graphs: list[Any] = []

    def counting(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, example)

    compiled = torch.compile(net, fullgraph=True, backend=counting)
    expected = gradients(net, net)
    for _ in range(3):
        torch.testing.assert_close(compiled(X.clone()), net(X.clone()))
    assert_same_gradients(gradients(net, compiled), expected)
    assert len(graphs) == 1


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.filterwarnings("ignore")
def test_exports(net: nn.Module, strict: bool) -> None:
    exported = torch.export.export(net, (X.clone(),), strict=strict)
    torch.testing.assert_close(exported.module()(X.clone()), net(X.clone()))


@pytest.mark.parametrize("name", NETS)
def test_exports_to_onnx(name: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    net = make_derived(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(net, (X.clone(),), dynamo=True, verbose=False)
    assert program is not None
    buffer = io.BytesIO()
    program.save(buffer)
    session = runtime.InferenceSession(buffer.getvalue())
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(X.clone()).detach())


def test_is_copied_and_pickled_in_this_process(net: nn.Module) -> None:
    saved = io.BytesIO()
    torch.save(net, saved)
    saved.seek(0)
    copies = [deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(saved, weights_only=False)]
    copies += [deepcopy(copies[1]), pickle.loads(pickle.dumps(copies[0]))]
    expected = net(X.clone())
    before = gradients(net, net)
    for copied in copies:
        assert torch.equal(copied(X.clone()), expected)
        assert {id(p) for p in copied.parameters()}.isdisjoint({id(p) for p in net.parameters()})
        assert [type(m).__name__ for m in copied.modules()] == [type(m).__name__ for m in net.modules()]
        with torch.no_grad():
            for p in copied.parameters():
                p.add_(1.0)
        assert not torch.equal(copied(X.clone()), expected)
    assert torch.equal(net(X.clone()), expected)
    assert_same_gradients(gradients(net, net), before)


def test_is_unpickled_in_a_fresh_process(tmp_path: Path) -> None:
    for kind, make in MAKERS.items():
        for name in NETS:
            net = make(name)
            torch.save((net, X, net(X.clone()).detach()), tmp_path / f"{kind} {name}.pt")
            (tmp_path / f"{kind} {name}.pickle").write_bytes(pickle.dumps((net, X, net(X.clone()).detach())))
    code = f"""
import pickle, pathlib, torch
from torch.nn.modules.module import Module
for path in sorted(pathlib.Path({str(tmp_path)!r}).iterdir()):
    if path.suffix == ".pt":
        net, x, expected = torch.load(path, weights_only=False)
    else:
        net, x, expected = pickle.loads(path.read_bytes())
    net(x.clone()).sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad), path.name
    again = pickle.loads(pickle.dumps(net))
    print(path.name, torch.equal(net(x.clone()), expected), torch.equal(again(x.clone()), expected))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(MAKERS) * len(NETS)
    assert [line for line in lines if not line.endswith("True True")] == []


def test_parameters_can_be_given_to_functional_call(net: nn.Module) -> None:
    given = {name: p.detach() * 1.5 for name, p in net.named_parameters()}
    other = deepcopy(net)
    with torch.no_grad():
        for name, p in other.named_parameters():
            p.copy_(given[name])
    assert torch.equal(functional_call(net, given, (X.clone(),)), other(X.clone()))


def test_vmap_of_grad_gives_the_gradients_of_single_rows(net: nn.Module) -> None:
    given = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(net, parameters, (row.unsqueeze(0),)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(given, X)
    for index, row in enumerate(X):
        expected = grad(loss)(given, row)
        for name, value in expected.items():
            torch.testing.assert_close(found[name][index], value)
    assert jacrev(net)(X).shape == (4, 6, 4, 6)


def test_vmap_over_an_ensemble(net: nn.Module) -> None:
    members = [net, deepcopy(net)]
    with torch.no_grad():
        for p in members[1].parameters():
            p.mul_(0.5)
    parameters, buffers = stack_module_state(members)

    def call(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return functional_call(net, (p, b), (X.clone(),))

    torch.testing.assert_close(vmap(call)(parameters, buffers), torch.stack([m(X.clone()) for m in members]))


def replicate(module: nn.Module) -> nn.Module:
    """What DataParallel does for one device, on the CPU."""
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        if child is not None:
            setattr(replica, name, replicate(child))
    for name, parameter in module._parameters.items():
        if parameter is not None:
            setattr(replica, name, parameter.detach() * 2)
    return replica


def test_a_replica_of_data_parallel_computes_with_its_own_weights(net: nn.Module) -> None:
    doubled = deepcopy(net)
    with torch.no_grad():
        for p in doubled.parameters():
            p.mul_(2)
    expected = net(X.clone())
    assert torch.equal(replicate(net)(X.clone()), doubled(X.clone()))
    assert torch.equal(net(X.clone()), expected)


def test_another_thread_computes_the_same(net: nn.Module) -> None:
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(net(X.clone()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = net(X.clone())
    assert [torch.equal(each, expected) for each in found] == [True] * 3


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(net: nn.Module, reentrant: bool) -> None:
    expected = gradients(net, net)
    found = gradients(net, lambda x: checkpoint(net, x.clone().requires_grad_(), use_reentrant=reentrant))
    assert_same_gradients(found, expected)


def test_a_state_is_loaded(net: nn.Module) -> None:
    other = deepcopy(net)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.7)
    net.load_state_dict(other.state_dict())
    assert torch.equal(net(X.clone()), other(X.clone()))


@pytest.mark.parametrize("name", NETS)
def test_the_state_of_the_model_is_part_of_the_supernet_s(name: str) -> None:
    net, supernet = make_net(name), make_supernet(name)
    state = supernet.model.state_dict()
    for key, value in net.state_dict().items():
        assert torch.equal(state[key], value)
    missing = supernet.model.load_state_dict({k: v * 2 for k, v in net.state_dict().items()}, strict=False)
    assert not missing.unexpected_keys
    assert all("alpha" in key or "temperature" in key or "betas" in key for key in missing.missing_keys)


def test_equal_blocks_share_one_class() -> None:
    """Otherwise torch.compile compiles each of them."""
    supernet = relax(nn.Sequential(*(make_net("inherited") for _ in range(4))), ["relu", "tanh"])
    classes = {type(block) for block in supernet.model.children()}
    assert len(classes) == 1
    assert all(isinstance(block, NETS["inherited"]) for block in supernet.model.children())


def test_a_traceback_shows_the_author_s_line() -> None:
    supernet = make_supernet("functional")
    with pytest.raises(TypeError) as caught:
        supernet(X, scale="text")
    entries = [(Path(str(entry.path)).name, str(entry.statement).strip()) for entry in caught.traceback]
    assert ("tool_nets.py", "return self.b(h if scale is None else h * scale)") in entries


class ByCalls(nn.Module):
    """Ten blocks of three calls."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Calls() for _ in range(10)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Calls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.relu(F.relu(x + self.shift)))


class ByModules(nn.Module):
    """The same, as it is written by hand for modules."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(6))
        self.one, self.two, self.three = nn.Softsign(), nn.Softsign(), nn.Softsign()

    def forward(self, x: Tensor) -> Tensor:
        return self.three(self.two(self.one(x + self.shift)))


def seconds_per_call(nets: list[nn.Module], rounds: int = 40, calls: int = 20) -> list[float]:
    """The best time of a call of each network; the networks take turns, so that a busy moment hits both."""
    best = [float("inf")] * len(nets)
    with torch.no_grad():
        for _ in range(rounds):
            for index, net in enumerate(nets):
                start = time.perf_counter()
                for _ in range(calls):
                    net(X)
                best[index] = min(best[index], (time.perf_counter() - start) / calls)
    return best


def test_a_site_costs_less_than_five_microseconds_over_a_module_written_by_hand() -> None:
    model = ByCalls()
    net = Genotype.uniform(model, "softsign").apply(model).eval()
    by_hand = nn.Sequential(*(ByModules() for _ in range(10))).eval()
    assert torch.equal(net(X), by_hand(X))
    for _ in range(3):
        ours, theirs = seconds_per_call([net, by_hand])
        if (ours - theirs) / 30 < 5e-6:
            return
    raise AssertionError(f"{(ours - theirs) / 30 * 1e6:.2f} us per site and call")
