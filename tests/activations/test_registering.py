"""Names, aliases and a user's own function: one line registers it, and an error is one line."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

import nasact
from nasact import activations
from nasact.activations import Beta, Candidate
from nasact.activations.candidate import CANDIDATES
from nasact.errors import NasactError, UnknownName

ALIASES = [(alias, candidate.name) for candidate in activations.candidates() for alias in candidate.aliases]


@pytest.fixture(autouse=True)
def _forget_registrations() -> Iterator[None]:
    with CANDIDATES.temporary():
        yield


def test_there_are_aliases_to_check() -> None:
    assert len(ALIASES) >= 17


@pytest.mark.parametrize(("alias", "name"), ALIASES)
def test_an_alias_is_the_same_record_and_no_separate_name(alias: str, name: str) -> None:
    assert activations.get(alias) is activations.get(name)
    assert alias not in activations.names()


@pytest.mark.parametrize(
    ("papers_name", "name"),
    [("swish", "silu"), ("linear", "identity"), ("sinu", "sin"), ("id", "identity"), ("cube_root", "signed_cbrt")],
)
def test_the_papers_names_are_known(papers_name: str, name: str) -> None:
    assert activations.get(papers_name).name == name


def test_an_unknown_name_lists_near_matches() -> None:
    with pytest.raises(
        UnknownName, match=r"^unknown function 'rleu'\. Did you mean 'relu'.*\(nasact list functions\)$"
    ):
        activations.get("rleu")
    with pytest.raises(UnknownName, match="Did you mean 'swish'"):
        activations.get("swihs")


def test_a_user_registers_a_function_in_one_line() -> None:
    candidate = nasact.register_function("my_act", lambda x: x * torch.sigmoid(x))
    x = torch.linspace(-3, 3, 7)
    assert activations.get("my_act") is candidate
    assert "my_act" in activations.names()
    torch.testing.assert_close(candidate(x), torch.nn.functional.silu(x))
    assert (candidate.formula, candidate.source, candidate.monotone) == ("my_act(x)", "user", False)
    assert candidate.range == (-math.inf, math.inf)


def test_a_user_s_function_may_have_parameters_facts_and_aliases() -> None:
    candidate = nasact.register_function(
        "my_gate",
        lambda x, a: x * torch.sigmoid(a * x),
        betas={"a": 2.0},
        formula="x s(a x)",
        left="0",
        right="x",
        aliases=["mine"],
    )
    x = torch.linspace(-3, 3, 7)
    assert candidate.betas == (Beta(name="a", init=2.0),)
    assert activations.get("mine") is candidate
    torch.testing.assert_close(candidate(x), x * torch.sigmoid(2 * x))
    torch.testing.assert_close(candidate(x, torch.tensor(1.0)), torch.nn.functional.silu(x))


@pytest.mark.parametrize(
    ("name", "function", "facts", "line"),
    [
        ("relu", torch.relu, {}, r"function 'relu' is already registered$"),
        ("swish", torch.relu, {}, r"function 'swish' is already registered \(an alias of 'silu'\)$"),
        ("new_one", torch.relu, {"aliases": ("relu",)}, r"function 'relu' is already registered$"),
        ("new_one", torch.relu, {"aliases": ("same", "same")}, r"the name 'same' is given twice$"),
        ("", torch.relu, {}, r"function '': a name must consist of"),
        ("a.b", torch.relu, {}, r"function 'a\.b': a name must consist of"),
        ("new_one", "relu", {}, r"`function` must be callable, but got 'relu'$"),
        ("new_one", torch.relu, {"fromula": "x"}, r"unknown fact 'fromula'\. Did you mean 'formula'\?$"),
        ("new_one", torch.relu, {"range": (1.0, 0.0)}, r"`low <= high` must hold, but got \(low=1\.0, high=0\.0\)$"),
        ("new_one", torch.relu, {"kinks": (1.0, 0.0)}, r"kinks must be finite and ascending"),
        ("new_one", torch.relu, {"kinks": (0.0,), "jumps": (1.0,)}, r"every jump must be a kink"),
        ("new_one", lambda x: x.sum(), {}, r"must map a tensor to a tensor of the same shape and type, but returned"),
        ("new_one", lambda x: 1.0, {}, r"but returned float for torch\.float32"),
        ("new_one", lambda x, y: x, {}, r"cannot be called on a tensor: .*missing 1 required positional argument"),
    ],
)
def test_a_wrong_registration_is_refused_in_one_line_and_registers_nothing(
    name: str, function: object, facts: dict[str, object], line: str
) -> None:
    before = activations.names()
    with pytest.raises(NasactError, match=line) as caught:
        activations.register_function(name, function, **facts)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert activations.names() == before
    with pytest.raises(UnknownName):
        activations.get("new_one")


def test_a_beta_must_start_within_its_bounds() -> None:
    with pytest.raises(
        NasactError, match=r"parameter 'b': `low <= init <= high` must hold, but got \(low=1\.0, init=0"
    ):
        Beta(name="b", init=0.0, low=1.0)
    with pytest.raises(NasactError, match="two parameters have the same name"):
        activations.register_function(
            "new_one", lambda x, a, b: x, betas=[Beta(name="a", init=0.0), Beta(name="a", init=0.0)]
        )


def test_too_many_betas_are_refused() -> None:
    with pytest.raises(NasactError, match="function 'snake' has 1 parameters, but got 2"):
        activations.get("snake")(torch.zeros(1), 1.0, 2.0)


def test_a_record_is_frozen() -> None:
    candidate: Candidate = activations.get("relu")
    with pytest.raises(AttributeError):
        candidate.name = "other"  # type: ignore[misc]
