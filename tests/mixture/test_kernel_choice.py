"""Which kernel computes an input, with which stated reason, and which calls only plain torch computes correctly."""

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
from kernel_nets import distance
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from nasact.cli.check import check
from nasact.mixture import KERNELS, Bank, Fused, Layout, torch_transforms
from nasact.mixture.kernels import fused
from nasact.mixture.kernels.automatic import ENOUGH
from nasact.mixture.table import native

# from torch itself: its forward mode loads decompositions by the deprecated torch.jit.script
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
    """The kernel that computed the output, recognised by its backward pass."""
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
def test_auto_uses_the_kernel_that_it_reports(level: str, dtype: torch.dtype, kernel: str, reason: str) -> None:
    bank = Bank(FEW, LAYOUTS[level])
    choice = bank.choose(CPU, dtype)
    assert (choice.kernel, choice.reason, choice.untabulated) == (kernel, reason, ())
    assert used(bank, torch.ones(4, 3, 500, dtype=dtype)) == kernel


def test_auto_is_fused_on_other_devices_than_a_cpu() -> None:
    assert str(Bank(FEW, Layout()).choose(CUDA, torch.float32)) == (
        "fused: the table's native code is for a CPU, not for cuda"
    )


def test_auto_is_fused_if_no_candidate_can_be_tabulated() -> None:
    bank = Bank(("prelu", "softmax"), Layout())
    assert str(bank.choose(CPU, torch.float32)) == (
        "fused: no candidate can be tabulated; prelu not tabulated: it has a learnable parameter; "
        "softmax not tabulated: it couples features"
    )
    assert used(bank, torch.ones(4, 3)) == "fused"


def test_auto_does_not_tabulate_a_function_that_is_too_steep() -> None:
    assert Bank(("relu", "signed_cbrt"), Layout()).choose(CPU, torch.float32).untabulated == (
        ("signed_cbrt", "its value would be off by 1.4e-04, more than 1.0e-06, with 1025 knots"),
    )


@every_level
@pytest.mark.parametrize("kernel", ["table", "fused", "reference"])
def test_a_requested_kernel_is_used(kernel: str, level: str) -> None:
    bank = Bank(FEW, LAYOUTS[level], kernel=kernel)
    choice = bank.choose(CPU, torch.float32)
    assert choice.kernel == kernel
    assert choice.reason.startswith("as requested")
    assert used(bank, torch.ones(4, 3, 500)) == kernel


@pytest.fixture
def no_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: "no compiler was found")
    monkeypatch.setattr(native, "_warnings", itertools.count(1))  # the one warning has been given


@pytest.mark.usefixtures("no_native_code")
@pytest.mark.parametrize(
    ("names", "level", "kernel", "reason"),
    [
        (MANY, "layer", "table", "float32 on a CPU, in plain torch and several times slower: no compiler was found"),
        (MANY, "channel", "table", "float32 on a CPU, in plain torch and several times slower: no compiler was found"),
        (
            MANY,
            "neuron",
            "fused",
            "at neuron level it is faster than a table without native code: no compiler was found",
        ),
        (
            FEW,
            "layer",
            "fused",
            "with 2 candidates it is faster than a table without native code: no compiler was found",
        ),
    ],
)
def test_without_native_code_auto_uses_the_faster_kernel(
    names: tuple[str, ...], level: str, kernel: str, reason: str
) -> None:
    assert len(MANY) == ENOUGH
    bank = Bank(names, LAYOUTS[level])
    choice = bank.choose(CPU, torch.float32)
    assert (choice.kernel, choice.reason) == (kernel, reason)
    assert used(bank, torch.ones(4, 3, 500)) == kernel
    assert used(bank, torch.ones(2, 3, 500)) == ("table" if (kernel, level) == ("table", "layer") else "fused")


@pytest.mark.usefixtures("no_native_code")
def test_without_native_code_a_requested_table_reports_plain_torch() -> None:
    why = Bank(FEW, Layout(), kernel="table").choose(CPU, torch.float32).why
    assert why == "as requested, in plain torch: no compiler was found"


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
    (
        "auto",
        "[relu, softmax]",
        "table",
        "float32 on a CPU, in native code; softmax not tabulated: it couples features",
    ),
    (
        "auto",
        "[prelu, snake]",
        "fused",
        "no candidate can be tabulated; prelu not tabulated: it has a learnable parameter;",
    ),
    ("reference", "[relu, softmax]", "reference", "as requested"),
    ("fused", "[relu, tanh]", "fused", "as requested"),
    ("{name: table, knots: 2049}", "[relu, tanh]", "table", "as requested, in native code"),
]


@needs_native_code
@pytest.mark.parametrize(("kernel", "space", "used_kernel", "why"), CHECKED)
def test_check_prints_the_kernel_of_every_site_and_why(
    kernel: str, space: str, used_kernel: str, why: str, tmp_path: Path
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY.format(kernel=kernel, space=space))
    shown = CliRunner(env={"COLUMNS": "100"}).invoke(check, [str(study)], catch_exceptions=False).output
    for site in ("act1", "act2"):
        row, _redundancy = [line for line in shown.splitlines() if line.startswith(site)]
        assert row.split()[-1] == used_kernel
    assert f"kernel {used_kernel}: {why}" in " ".join(shown.split())
    document = json.loads(CliRunner().invoke(check, [str(study), "--json"], catch_exceptions=False).output)
    assert [(site["kernel"], site["kernel_why"].startswith(why)) for site in document["sites"]] == [
        (used_kernel, True)
    ] * 2


# ---- calls that only plain torch computes correctly -----------------------------------------------------------------


def answers_under(transform: Callable[[Callable[[Tensor], Tensor]], object]) -> list[bool]:
    """The results of `is_transformed` for x inside a function that `transform` calls."""
    found: list[bool] = []

    def function(x: Tensor) -> Tensor:
        found.append(torch_transforms.is_transformed(x))
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
def test_a_transform_is_detected(name: str) -> None:
    assert set(answers_under(TRANSFORMS[name])) == {True}


class TensorSubclass(Tensor):
    pass


TENSORS: dict[str, Callable[[], Tensor]] = {
    "meta": lambda: X.to("meta"),
    "subclass": lambda: X.as_subclass(TensorSubclass),
    "sparse": lambda: X.to_sparse(),
    "lazy negative": lambda: torch._neg_view(X),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_is_not_plain_is_detected(name: str) -> None:
    assert torch_transforms.is_transformed(X, TENSORS[name]())


def test_lazy_zeros_are_detected_in_a_backward_pass() -> None:
    assert torch_transforms.is_transformed_backward(X, torch._efficientzerotensor(3))
    assert not torch_transforms.is_transformed_backward(X, X)


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
def test_a_mode_that_changes_no_operation_is_no_transform(mode: str) -> None:
    with MODES[mode]():
        assert not torch_transforms.is_transformed(X, torch.nn.Parameter(X.clone()), torch.nn.Buffer(X))


def test_tangents_and_dispatch_modes_are_detected() -> None:
    with forward_ad.dual_level():
        assert torch_transforms.is_transformed(X, forward_ad.make_dual(X, X))
        assert not torch_transforms.is_transformed(X)
    with FakeTensorMode():
        assert torch_transforms.is_transformed(X)
    assert not torch_transforms.is_transformed(X)


@pytest.mark.parametrize("absent", ["_FUNCTIONAL", "_MODES"])
def test_a_torch_that_reports_no_transforms_gets_plain_torch(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_transforms, absent, None)
    for kernel in KERNELS.names():
        bank = Bank(FEW, Layout(), kernel=kernel)
        assert used(bank, X) == "reference"
        choice = str(bank.choose(CPU, torch.float32))
        if kernel != "reference":
            assert choice == f"reference: torch {torch.__version__} does not report when it transforms a call"


def test_without_torch_s_count_of_dual_levels_every_tensor_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_transforms, "forward_ad", SimpleNamespace(unpack_dual=forward_ad.unpack_dual))
    with forward_ad.dual_level():
        assert torch_transforms.is_transformed(X, forward_ad.make_dual(X, X))
        assert not torch_transforms.is_transformed(X)
    assert not torch_transforms.is_transformed(X)


def test_every_use_of_a_private_name_of_torch_is_guarded() -> None:
    source = inspect.getsource(torch_transforms)
    private = {line.strip() for line in source.splitlines() if re.search(r"[a-z]\._[a-zC]", line)}
    assert len(private) >= 4
    assert all("getattr(" in line for line in private)


def test_the_detection_is_cheap() -> None:
    weights = torch.nn.Parameter(X.clone())
    detecting = min(timeit.repeat(lambda: torch_transforms.is_transformed(X, weights), number=2000, repeat=15)) / 2000
    adding = min(timeit.repeat(lambda: X + X, number=2000, repeat=15)) / 2000
    assert detecting < max(3e-6, 4 * adding)


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
        assert distance(gradients(bank, x, weights), true) < 1e-5


@pytest.mark.slow
@every_level
def test_compiled_fused_has_every_gradient(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_warnings", itertools.count())
    torch._dynamo.utils.counters.clear()
    fused._compiled_passes.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # falling back to plain torch would warn
        check_fused(level)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2


def test_fused_works_without_a_compiler_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_warnings", itertools.count())
    fused._compiled_passes.cache_clear()
    torch._dynamo.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/no/such/compiler"), "force_disable_caches": True}),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        for level in ("layer", "channel"):
            check_fused(level)
    fused._compiled_passes.cache_clear()
    texts = [str(each.message) for each in caught if each.category is RuntimeWarning]
    assert len(texts) == 1
    assert texts[0].startswith("nasact: fused runs in plain torch, slower: torch.compile fails: ")
    assert "\n" not in texts[0]
