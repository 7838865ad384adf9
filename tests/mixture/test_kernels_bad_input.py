"""What no kernel can compute is refused in one line that names the site, or the study's key, and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from nasact import activations
from nasact.activations.candidate import CANDIDATES
from nasact.cli.check import check
from nasact.errors import MixtureError, NasactError, StudyError
from nasact.mixture import KERNELS, Automatic, Bank, Fused, Layout, Reference, Table, as_kernel, kernels
from nasact.mixture.table.basis import Grid, declared_obstacle, find_enough_knots, find_obstacle, measured_obstacle
from nasact.supernet import Supernet, relax

every_kernel = pytest.mark.parametrize("kernel", KERNELS.names())

USER_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "own_centred": lambda x: x - x.mean(),
    "own_kink": lambda x: torch.where(x > 0.3, x, 0.3 + 0 * x),
    "own_jump": lambda x: torch.where(x > 0.5, x + 1, x),
    "own_thirds": lambda x: (x - 1 / 3).relu(),
    "own_rough": lambda x: x.abs().sqrt(),
    "own_narrow": lambda x: x * torch.ones(2, 3, dtype=x.dtype),
}


@pytest.fixture(scope="module", autouse=True)
def _user_functions() -> Iterator[None]:
    with CANDIDATES.temporary():
        for name, function in USER_FUNCTIONS.items():
            activations.register_function(name, function, kinks=(1 / 3,) if name == "own_thirds" else ())
        yield


def net(kernel: object, *space: str, level: str = "layer") -> Supernet:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    return relax(model, space or ("relu", "tanh"), kernel=kernel, level=level, example_input=torch.ones(2, 3))  # type: ignore[arg-type]


def refused(make: Callable[[], object], kind: type[Exception] = MixtureError) -> str:
    """The message, asserted to be one line, of the error that `make` raises."""
    with pytest.raises(kind) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- ranges ---------------------------------------------------------------------------------------------------------

TABLES = {
    "low above high": (lambda: Table(low=2.0, high=1.0), "`low < high` must hold, but got (low=2.0, high=1.0)"),
    "low at high": (lambda: Table(low=0.0, high=0.0), "`low < high` must hold, but got (low=0.0, high=0.0)"),
    "not a number": (lambda: Table(high=float("nan")), "`low < high` must hold, but got (low=-32.0, high=nan)"),
    "no end": (lambda: Table(high=float("inf")), "`low < high` must hold"),
    "one knot": (lambda: Table(knots=1), "knots must be a whole number from 2 to 65536, but got 1"),
    "half a knot": (lambda: Table(knots=65.5), "whole number from 2 to 65536, but got 65.5"),  # type: ignore[arg-type]
    "a million": (lambda: Table(knots=10**6), "whole number from 2 to 65536, but got 1000000"),
    "no tolerance": (lambda: Table(tolerance=0.0), "tolerance must lie between 0 and 1, but got 0.0"),
    "zero between": (lambda: Table(low=-1.0, high=1.0, knots=4), "zero must be a knot, but 4 knots from -1.0 to 1.0"),
    "zero outside": (lambda: Table(low=1.0, high=3.0), "zero must be a knot"),
    "fused": (lambda: Fused(compile="alway"), "compile must be auto, always or never, but got 'alway'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_with_impossible_options_is_refused(case: str) -> None:
    make, expected = TABLES[case]
    assert expected in refused(make)


@pytest.mark.parametrize("knots", [17, 65, 129, 257])
def test_the_refusal_of_too_few_knots_names_a_number_that_is_enough(knots: int) -> None:
    message = refused(lambda: net(Table(knots=knots)))
    assert message.startswith("site '1': kernel 'table' cannot hold 'tanh': its value would be off by ")
    assert f"more than 1.0e-06, with {knots} knots; " in message
    enough = int(message.split("; ")[1].removesuffix(" are enough"))
    bank = net(Table(knots=enough)).mixtures()["1"].bank
    assert bank.choose(torch.device("cpu"), torch.float32).untabulated == ()
    assert find_obstacle(Grid(knots=(enough - 1) // 2 + 1), "tanh") is not None, "half as many cells are too few"


def test_the_refusal_of_a_kink_between_the_knots_names_more_knots() -> None:
    assert refused(lambda: net(Table(knots=33), "hard_sigmoid")) == (
        "site '1': kernel 'table' cannot hold 'hard_sigmoid': "
        "its kink at -3 is not on one of the 33 knots; 65 are enough"
    )


# ---- functions that are not what their record states ----------------------------------------------------------------

MISTAKEN = {
    "own_centred": "it is not elementwise: its value at one element depends on the others, though its record says "
    "otherwise; register it with elementwise=False",
    "own_kink": "does its record name all its kinks and jumps?",
    "own_jump": "does its record name all its kinks and jumps?",
    "own_rough": "does its record name all its kinks and jumps?",
    "own_narrow": "it cannot be differentiated twice",
    "signed_cbrt": "its value would be off by 1.4e-04, more than 1.0e-06, with 1025 knots; 8193 are enough",
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_a_requested_table_refuses_an_obstacle_that_the_record_does_not_declare(name: str) -> None:
    message = refused(lambda: net("table", "relu", name))
    assert message.startswith(f"site '1': kernel 'table' cannot hold '{name}': ")
    assert MISTAKEN[name] in message


@pytest.mark.parametrize("name", [name for name in MISTAKEN if name != "own_narrow"])
def test_the_automatic_choice_computes_such_a_function_by_its_formula(name: str) -> None:
    bank = net("auto", "relu", name).mixtures()["1"].bank
    choice = bank.choose(torch.device("cpu"), torch.float32)
    assert [candidate for candidate, _ in choice.untabulated] == [name]
    x, weights = torch.linspace(-2, 2, 12).view(3, 4), torch.tensor([0.5, 0.5])
    expected = 0.5 * x.relu() + 0.5 * activations.get(name)(x)
    torch.testing.assert_close(bank(x, weights), expected, rtol=1e-6, atol=1e-6)


DECLARED = {
    "prelu": "it has a learnable parameter",
    "hardshrink": "it jumps",
    "softmax": "it couples features",
    "own_thirds": "its kink at 0.333333 is not on a knot, nor on one of any finer table",
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_obstacle_is_computed_by_its_formula_with_a_requested_table(name: str) -> None:
    bank = net("table", "relu", name).mixtures()["1"].bank
    assert bank.choose(torch.device("cpu"), torch.float32).untabulated == ((name, DECLARED[name]),)
    assert declared_obstacle(Grid(), name) == find_obstacle(Grid(), name) == DECLARED[name]


def test_an_original_function_is_not_tabulated_by_a_requested_table() -> None:
    bank = Bank(("tanh", "original"), Layout(), original=nn.LeakyReLU(0.3), kernel="table", where="site 'act'")
    assert bank.choose(torch.device("cpu"), torch.float32).untabulated == (("original", "it is the model's own"),)


def test_a_requested_table_refuses_a_bank_without_any_tabulable_function() -> None:
    assert refused(lambda: net("table", "prelu", "softmax")) == (
        "site '1': kernel 'table' can hold none of the candidates; 'prelu': it has a learnable parameter"
    )


def test_the_errors_of_a_candidate_are_measured_once() -> None:
    before = measured_obstacle.cache_info().misses
    for _ in range(3):
        net("auto", "relu", "own_kink")
    assert measured_obstacle.cache_info().misses <= before + 2
    assert find_enough_knots(Grid(), "own_kink") is None


# ---- inputs ---------------------------------------------------------------------------------------------------------


@every_kernel
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_inputs_that_are_not_floating_point_are_refused(kernel: str, dtype: torch.dtype) -> None:
    message = refused(lambda: net(kernel).mixtures()["1"](torch.ones(2, 4).to(dtype)))
    assert message == f"site '1': a mixture needs a floating point input, but got {dtype}"


@every_kernel
def test_a_level_that_does_not_fit_the_input_is_refused(kernel: str) -> None:
    channel, neuron = (net(kernel, level=level).mixtures()["1"] for level in ("channel", "neuron"))
    assert refused(lambda: channel(torch.ones(4))) == (
        "site '1': level 'channel' needs an input of at least 2 dimensions, but got shape (4,)"
    )
    assert "has 4 channels at dimension -1, but got shape (2, 5)" in refused(lambda: channel(torch.ones(2, 5)))
    assert refused(lambda: neuron(torch.ones(2, 5))) == (
        "site '1': level 'neuron' has units of shape (4,), but got an input of shape (2, 5)"
    )


@every_kernel
@pytest.mark.parametrize("shape", [(3,), (), (1, 2), (2, 1)])
def test_weights_of_another_bank_are_refused(kernel: str, shape: tuple[int, ...]) -> None:
    bank = net(kernel).mixtures()["1"].bank
    message = refused(lambda: bank(torch.ones(2, 4), torch.ones(shape)))
    assert message == f"site '1': expected weights of shape (2,), but got {shape}"


def test_a_requested_table_refuses_float64() -> None:
    site = net("table").mixtures()["1"]
    expected = "site '1': kernel 'table' holds float32 and cannot compute float64: use auto, fused or reference"
    assert refused(lambda: site(torch.ones(2, 4, dtype=torch.float64))) == expected
    assert refused(lambda: site.bank.choose(torch.device("cpu"), torch.float64)) == expected


def test_a_requested_table_computes_the_other_dtypes_in_plain_torch() -> None:
    bank, weights = net("table").mixtures()["1"].bank, torch.tensor([0.25, 0.75])
    x = torch.linspace(-3, 3, 8).half().view(2, 4)
    y = bank(x, weights)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, 0.25 * x.relu() + 0.75 * x.tanh(), rtol=2e-3, atol=2e-3)
    assert "in plain torch" in bank.choose(torch.device("cpu"), torch.float16).why


# ---- names ----------------------------------------------------------------------------------------------------------


def test_unknown_kernels_and_options_name_their_neighbours() -> None:
    assert refused(lambda: net("tabel"), NasactError) == (
        "unknown kernel 'tabel'. Did you mean 'table'? (nasact list kernels)"
    )
    assert "Did you mean 'knots'?" in refused(lambda: kernels.build("table", {"knot": 5}), StudyError)
    assert {type(as_kernel(name)) for name in KERNELS.names()} >= {Automatic, Table, Fused, Reference}


@pytest.mark.parametrize("wrong", [3, None, Table, nn.ReLU()], ids=str)
def test_the_refusal_of_what_is_no_kernel_lists_the_kernels(wrong: object) -> None:
    assert refused(lambda: net(wrong)).startswith(
        f"a kernel is one of {', '.join(KERNELS.names())} or a record such as Table(knots=2049), but got "
    )


STUDY = """\
name: tiny
task: {{dataset: digits, model: {{name: mlp, hidden: [8]}}, train_limit: 400, test_limit: 200}}
search_space: [relu, tanh]
search:
  strategy: {{name: darts}}
  epochs: 6
  kernel: {kernel}
retrain: {{epochs: 8}}
"""

KERNEL_LINES = {
    "tabel": "search.kernel: unknown kernel 'tabel'. Did you mean 'table'? (nasact list kernels)",
    "{name: tabel}": "search.kernel.name: unknown kernel 'tabel'. Did you mean 'table'? (nasact list kernels)",
    "{name: table, knot: 5}": "search.kernel.knot: unknown option 'knot' of kernel 'table'. Did you mean 'knots'?",
    "{name: table, knots: many}": "search.kernel.knots: must be a whole number, but got 'many'",
    "{name: table, low: 2, high: 1}": "search.kernel: table: `low < high` must hold, but got (low=2.0, high=1.0)",
    "{name: table, low: -1, high: 1, knots: 4}": "search.kernel: table: zero must be a knot, but 4 knots",
    "{name: table, tolerance: 2}": "search.kernel.tolerance: table: the tolerance must lie between 0 and 1, but",
    "{name: fused, compile: alway}": "search.kernel.compile: must be 'auto' or 'always' or 'never', but got 'alway'",
    "{name: reference, knots: 5}": "search.kernel.knots: unknown option 'knots' of kernel 'reference'.",
}


def refusal(kernel: str, folder: Path) -> str:
    """The message by which `nasact check` refuses a study with this kernel."""
    (folder / "tiny.yaml").write_text(STUDY.format(kernel=kernel))
    return refused(lambda: CliRunner().invoke(check, [str(folder / "tiny.yaml")], catch_exceptions=False), NasactError)


@pytest.mark.parametrize("kernel", KERNEL_LINES)
def test_the_refusal_of_a_study_s_kernel_names_its_line_and_key(kernel: str, tmp_path: Path) -> None:
    assert f"tiny.yaml:7: {KERNEL_LINES[kernel]}" in refusal(kernel, tmp_path)


def test_the_refusal_of_a_study_s_coarse_table_names_the_site(tmp_path: Path) -> None:
    message = refusal("{name: table, knots: 65}", tmp_path)
    assert message.startswith("site 'act1': kernel 'table' cannot hold 'tanh'")
    assert message.endswith("; 513 are enough")


def test_options_are_checked_together(tmp_path: Path) -> None:
    # -8 is no valid low end of a table with the default high and knots
    (tmp_path / "tiny.yaml").write_text(STUDY.format(kernel="{name: table, low: -8, high: 8, knots: 257}"))
    assert CliRunner().invoke(check, [str(tmp_path / "tiny.yaml")], catch_exceptions=False).exit_code == 0
