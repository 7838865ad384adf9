"""Which kernel computes what, why, that it says so, and how it tells a call that only plain torch may serve."""

from __future__ import annotations

import inspect
import itertools
import json
import re
import timeit
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from kernel_nets import apart
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from nasact.cli.check import check
from nasact.mixture import KERNELS, Bank, Fused, Layout
from nasact.mixture.kernels import context, fused
from nasact.mixture.kernels.automatic import ENOUGH
from nasact.mixture.table import native

# torch's own: its forward mode loads decompositions by the deprecated torch.jit.script
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FEW, MANY = ("relu", "tanh"), ("relu", "tanh", "sigmoid", "silu", "gelu", "elu")
LAYOUTS = {
    "layer": Layout(),
    "channel": Layout(level="channel", shape=(3,)),
    "neuron": Layout(level="neuron", shape=(3, 500)),
}
every_level = pytest.mark.parametrize("level", LAYOUTS)

needs_native_code = pytest.mark.skipif(isinstance(native.load(), str), reason=f"no native code: {native.load()}")


def used(bank: Bank, x: Tensor, weights: Tensor | None = None) -> str:
    """The kernel that computed the output, told by its backward pass."""
    weights = torch.ones(*bank.layout.shape, len(bank.names)) if weights is None else weights
    y = bank(x.detach().requires_grad_(), weights.to(x.device))
    return {"_MixBackward": "table", "_FusedBackward": "fused"}.get(type(y.grad_fn).__name__, "reference")


# ---- the choice -----------------------------------------------------------------------------------------------------


@needs_native_code
@every_level
@pytest.mark.parametrize(
    ("dtype", "kernel", "reason"),
    [
        (torch.float32, "table", "float32 on a CPU, in native code"),
        (torch.bfloat16, "table", "bfloat16 on a CPU, in native code"),
        (torch.float16, "fused", "the table is for float32 and bfloat16, not for float16"),
        (torch.float64, "fused", "the table is for float32 and bfloat16, not for float64"),
    ],
)
def test_auto_says_what_it_takes_and_takes_it(level: str, dtype: torch.dtype, kernel: str, reason: str) -> None:
    bank = Bank(FEW, LAYOUTS[level])
    choice = bank.choose(CPU, dtype)
    assert (choice.kernel, choice.reason, choice.beside) == (kernel, reason, ())
    assert used(bank, torch.ones(4, 3, 500, dtype=dtype)) == kernel


def test_auto_is_fused_elsewhere_than_on_a_cpu() -> None:
    assert str(Bank(FEW, Layout()).choose(CUDA, torch.float32)) == (
        "fused: the table's native code is for a CPU, not for cuda"
    )


def test_auto_is_fused_where_nothing_can_be_tabulated() -> None:
    bank = Bank(("prelu", "softmax"), Layout())
    assert str(bank.choose(CPU, torch.float32)) == (
        "fused: no candidate can be tabulated; prelu beside it: it has a learnable parameter; "
        "softmax beside it: it couples features"
    )
    assert used(bank, torch.ones(4, 3)) == "fused"


def test_auto_computes_beside_the_table_what_is_too_steep_for_it() -> None:
    assert Bank(("relu", "signed_cbrt"), Layout()).choose(CPU, torch.float32).beside == (
        ("signed_cbrt", "its value would be off by 1.4e-04, more than 1.0e-06, with 1025 knots"),
    )


@every_level
@pytest.mark.parametrize("kernel", ["table", "fused", "reference"])
def test_a_forced_kernel_is_taken(kernel: str, level: str) -> None:
    bank = Bank(FEW, LAYOUTS[level], kernel=kernel)
    choice = bank.choose(CPU, torch.float32)
    assert choice.kernel == kernel
    assert choice.reason.startswith("as asked for")
    assert used(bank, torch.ones(4, 3, 500)) == kernel


@pytest.fixture
def no_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: "nobody compiled it")
    monkeypatch.setattr(native, "_warnings", itertools.count(1))  # the warning was given


@pytest.mark.usefixtures("no_native_code")
@pytest.mark.parametrize(
    ("names", "level", "kernel", "reason"),
    [
        (MANY, "layer", "table", "float32 on a CPU, in plain torch and several times slower: nobody compiled it"),
        (MANY, "channel", "table", "float32 on a CPU, in plain torch and several times slower: nobody compiled it"),
        (MANY, "neuron", "fused", "at neuron level it is faster than a table without native code: nobody compiled it"),
        (FEW, "layer", "fused", "with 2 candidates it is faster than a table without native code: nobody compiled it"),
    ],
)
def test_without_native_code_auto_takes_what_is_faster(
    names: tuple[str, ...], level: str, kernel: str, reason: str
) -> None:
    assert len(MANY) == ENOUGH
    bank = Bank(names, LAYOUTS[level])
    choice = bank.choose(CPU, torch.float32)
    assert (choice.kernel, choice.reason) == (kernel, reason)
    assert used(bank, torch.ones(4, 3, 500)) == kernel
    assert used(bank, torch.ones(2, 3, 500)) == ("table" if (kernel, level) == ("table", "layer") else "fused")


@pytest.mark.usefixtures("no_native_code")
def test_without_native_code_a_forced_table_says_that_it_is_slow() -> None:
    why = Bank(FEW, Layout(), kernel="table").choose(CPU, torch.float32).why
    assert why == "as asked for, in plain torch: nobody compiled it"


# ---- nasact check ---------------------------------------------------------------------------------------------------

STUDY = """\
name: tiny
task: {{dataset: digits, model: {{name: mlp, hidden: [8, 6]}}, train_limit: 400, test_limit: 200}}
search_space: {space}
search: {{strategy: {{name: darts}}, epochs: 6, kernel: {kernel}}}
retrain: {{epochs: 8}}
"""
CHECKED = [
    ("auto", "[relu, tanh]", "table", "float32 on a CPU, in native code"),
    ("auto", "[relu, softmax]", "table", "float32 on a CPU, in native code; softmax beside it: it couples features"),
    (
        "auto",
        "[prelu, snake]",
        "fused",
        "no candidate can be tabulated; prelu beside it: it has a learnable parameter;",
    ),
    ("reference", "[relu, softmax]", "reference", "as asked for"),
    ("fused", "[relu, tanh]", "fused", "as asked for"),
    ("{name: table, knots: 2049}", "[relu, tanh]", "table", "as asked for, in native code"),
]


@needs_native_code
@pytest.mark.parametrize(("kernel", "space", "taken", "why"), CHECKED)
def test_check_prints_the_kernel_of_every_site_and_why(
    kernel: str, space: str, taken: str, why: str, tmp_path: Path
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY.format(kernel=kernel, space=space))
    shown = CliRunner(env={"COLUMNS": "100"}).invoke(check, [str(study)], catch_exceptions=False).output
    for site in ("act1", "act2"):
        row, _hygiene = [line for line in shown.splitlines() if line.startswith(site)]
        assert row.split()[-1] == taken
    assert f"kernel {taken}: {why}" in " ".join(shown.split())
    document = json.loads(CliRunner().invoke(check, [str(study), "--json"], catch_exceptions=False).output)
    assert [(site["kernel"], site["kernel_why"].startswith(why)) for site in document["sites"]] == [(taken, True)] * 2


# ---- calls that only plain torch may serve --------------------------------------------------------------------------


def sees(monkeypatch: pytest.MonkeyPatch, transform: Callable[[Callable[[Tensor], Tensor]], object]) -> list[bool]:
    """What `transformed` says of x where `transform` calls a function."""
    found: list[bool] = []

    def function(x: Tensor) -> Tensor:
        found.append(context.transformed(x))
        return 2 * x

    transform(function)
    return found


X = torch.ones(3)
TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor]], object]] = {
    "vmap": lambda f: torch.func.vmap(f)(X),
    "grad": lambda f: torch.func.grad(lambda x: f(x).sum())(X),
    "vjp": lambda f: torch.func.vjp(f, X),
    "jvp": lambda f: torch.func.jvp(f, (X,), (X,)),
    "functionalize": lambda f: torch.func.functionalize(f)(X),
    "make_fx": lambda f: torch.fx.experimental.proxy_tensor.make_fx(f)(X),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(sees(monkeypatch, TRANSFORMS[name])) == {True}


class Strange(Tensor):
    pass


TENSORS: dict[str, Callable[[], Tensor]] = {
    "meta": lambda: X.to("meta"),
    "subclass": lambda: X.as_subclass(Strange),
    "sparse": lambda: X.to_sparse(),
    "lazy negative": lambda: torch._neg_view(X),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_is_not_plainly_one_is_seen(name: str) -> None:
    assert context.transformed(X, TENSORS[name]())


def test_lazy_zeros_are_seen_in_a_backward_pass() -> None:
    assert context.transformed_back(X, torch._efficientzerotensor(3))
    assert not context.transformed_back(X, X)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "hooks": lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t),
    "dual level": forward_ad.dual_level,
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("mode", MODES)
def test_what_changes_no_operation_is_none(mode: str) -> None:
    with MODES[mode]():
        assert not context.transformed(X, torch.nn.Parameter(X.clone()), torch.nn.Buffer(X))


def test_tangents_and_dispatch_modes_are_seen() -> None:
    with forward_ad.dual_level():
        assert context.transformed(X, forward_ad.make_dual(X, X))
        assert not context.transformed(X)
    with FakeTensorMode():
        assert context.transformed(X)
    assert not context.transformed(X)


@pytest.mark.parametrize("absent", ["_FUNCTIONAL", "_MODES"])
def test_a_torch_that_does_not_tell_gets_plain_torch_and_is_named(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, absent, None)
    for kernel in KERNELS.names():
        bank = Bank(FEW, Layout(), kernel=kernel)
        assert used(bank, X) == "reference"
        said = str(bank.choose(CPU, torch.float32))
        if kernel != "reference":
            assert said == f"reference: torch {torch.__version__} does not tell when it transforms a call"


def test_a_torch_without_its_count_of_dual_levels_is_asked_for_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "forward_ad", SimpleNamespace(unpack_dual=forward_ad.unpack_dual))
    with forward_ad.dual_level():
        assert context.transformed(X, forward_ad.make_dual(X, X))
        assert not context.transformed(X)
    assert not context.transformed(X)


def test_nothing_private_is_used_unguarded() -> None:
    source = inspect.getsource(context)
    private = {line.strip() for line in source.splitlines() if re.search(r"[a-z]\._[a-zC]", line)}
    assert len(private) == 4
    assert all("getattr(" in line for line in private)


def test_asking_is_cheap() -> None:
    weights = torch.nn.Parameter(X.clone())
    asking = min(timeit.repeat(lambda: context.transformed(X, weights), number=2000, repeat=15)) / 2000
    adding = min(timeit.repeat(lambda: X + X, number=2000, repeat=15)) / 2000
    assert asking < max(3e-6, 4 * adding)


# ---- fused, compiled ------------------------------------------------------------------------------------------------

COMPILED = ("relu", "tanh", "snake", "prelu", "softmax")


def gradients(bank: Bank, x: Tensor, weights: Tensor) -> list[Tensor]:
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    y = bank(x, weights)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), (x, weights, *bank.parameters()))]


def check_fused(level: str) -> None:
    torch.manual_seed(0)
    layout = Layout(level=level, shape={"layer": (), "channel": (3,), "neuron": (3, 4)}[level])
    bank, exact = (Bank(COMPILED, layout, kernel=kernel) for kernel in (Fused(compile="always"), "reference"))
    weights = torch.randn(*layout.shape, len(COMPILED))
    for batch in (5, 2):
        x = torch.randn(batch, 3, 4)
        true = gradients(exact.double(), x.double(), weights.double())
        assert apart(gradients(bank, x, weights), true) < 1e-5


@pytest.mark.slow
@every_level
def test_compiled_fused_has_every_gradient(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_warnings", itertools.count())
    torch._dynamo.utils.counters.clear()
    fused._passes.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # to do without compiled code would be told
        check_fused(level)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2


def test_fused_does_without_a_compiler_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_warnings", itertools.count())
    fused._passes.cache_clear()
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler"), "force_disable_caches": True}),
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        for level in ("layer", "channel"):
            check_fused(level)
    fused._passes.cache_clear()
    texts = [str(each.message) for each in said if each.category is RuntimeWarning]
    assert len(texts) == 1
    assert texts[0].startswith("nasact: fused runs in plain torch, slower: torch.compile fails: ")
    assert "\n" not in texts[0]
