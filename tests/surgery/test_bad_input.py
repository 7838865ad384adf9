"""Code that surgery cannot read or exchange is refused in relax(), in one line with the module, place and remedy."""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from equivalence import Net, batch, written
from refused_models import Parent, assert_refused, assert_the_rest_is_searched
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.supernet import find_sites, relax


def imported(path: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


BLOCK = """
import torch
from torch import nn
from torch.nn import functional as F

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)

    def forward(self, x):
        return F.relu(self.a(x))
"""


def test_a_class_made_by_exec_is_refused() -> None:
    scope: dict[str, Any] = {"__name__": __name__}
    exec(BLOCK, scope)
    model = Parent(scope["Block"]())
    assert_refused(model, "block", "forward", "source", "relu")
    assert_the_rest_is_searched(model)


def test_a_class_made_by_exec_without_an_activation_is_no_obstacle() -> None:
    scope: dict[str, Any] = {"__name__": __name__}
    exec(BLOCK.replace("F.relu(self.a(x))", "self.a(x) * 2"), scope)
    model = Parent(scope["Block"]())
    supernet = relax(model, ["relu", "tanh"], normaliser="affine", init="original", kernel="reference")
    assert list(supernet.mixtures()) == ["act"]
    assert torch.equal(supernet(batch(0)), model(batch(0)))


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edited_block.py"
    path.write_text(BLOCK)
    model = Parent(imported(path, "edited_block").Block())
    path.write_text(BLOCK.replace("F.relu(self.a(x))", "torch.tanh(self.a(x)) * 2"))
    assert_refused(model, "block", "forward", "changed")
    assert_the_rest_is_searched(model)


def test_lines_added_above_after_the_import_are_seen(tmp_path: Path) -> None:
    """The text at the old line numbers is another function's."""
    path = tmp_path / "shifted_block.py"
    path.write_text(BLOCK)
    model = Parent(imported(path, "shifted_block").Block())
    path.write_text(BLOCK.replace("class Block", "def forward(self, x):\n    return torch.tanh(x)\n\n\nclass Block"))
    assert_refused(model, "block", "changed")


def test_a_deleted_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deleted_block.py"
    path.write_text(BLOCK)
    model = Parent(imported(path, "deleted_block").Block())
    path.unlink()
    assert_refused(model, "block", "forward", "source")
    assert_the_rest_is_searched(model)


def test_a_file_with_a_syntax_error_after_the_import_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken_block.py"
    path.write_text(BLOCK)
    model = Parent(imported(path, "broken_block").Block())
    path.write_text(BLOCK + "\n    def (")
    assert_refused(model, "block", "changed")


def test_an_edited_file_is_refused_also_after_a_first_look(tmp_path: Path) -> None:
    path = tmp_path / "looked_block.py"
    path.write_text(BLOCK)
    block = imported(path, "looked_block").Block
    assert len(find_sites(Parent(block())).sites) == 2
    path.write_text(BLOCK.replace("relu", "tanh"))
    report = find_sites(Parent(block()))
    assert [site.function for site in report.sites] in (["relu", "tanh"], ["tanh"])
    assert len(report.sites) == 2 or "changed" in report.unreachable[0].reason


def test_a_program_on_the_command_line_is_refused() -> None:
    program = BLOCK + textwrap.dedent("""
        import nasact
        try:
            nasact.relax(nn.Sequential(Block(), nn.Tanh()))
        except nasact.NasactError as refusal:
            print(refusal)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for text in ("forward", "source", "relu"):
        assert text in done.stdout


class Hides:
    """A decorator that keeps the function where no one can exchange it."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.call = functools.partial(function)

    def __get__(self, owner: Any, kind: Any) -> Callable[..., Tensor]:
        return lambda *args: self.call(owner, *args)


FUNCTIONS: list[Callable[..., Tensor]] = []


def by_number(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A decorator that keeps the function in a list."""
    FUNCTIONS.append(function)
    number = len(FUNCTIONS) - 1

    @functools.wraps(function)
    def wrapper(*args: Any) -> Tensor:
        return FUNCTIONS[number](*args)

    return wrapper


class HiddenByAnObject(Net):
    @Hides
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


class HiddenByAList(Net):
    @by_number
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)))


@pytest.mark.parametrize("kind", [HiddenByAnObject, HiddenByAList])
def test_a_decorator_that_hides_the_function_is_refused(kind: type[nn.Module]) -> None:
    model = Parent(kind())
    assert_refused(model, "block", "forward", "decorat")
    assert_the_rest_is_searched(model)


LINES: dict[str, tuple[str, tuple[str, ...]]] = {
    # statements of a forward; the second of them is at fault, and the texts are in the refusal
    "handed to map": ("h = self.a(x)\n        return torch.stack(list(map(F.relu, h)))", ("relu", "map")),
    "chosen at run time": (
        "h = self.a(x)\n        return {'relu': F.relu, 'tanh': torch.tanh}[self.name](h)",
        ("relu",),
    ),
    "setting made at run time": ("h = self.a(x)\n        return F.leaky_relu(h, self.rate)", ("leaky_relu",)),
    "setting from the data": ("h = self.a(x)\n        return F.elu(h, alpha=float(h.detach().std()))", ("elu",)),
    "own slopes": ("h = self.a(x)\n        return F.prelu(h, self.slope)", ("prelu", "nn.PReLU")),
    "random slopes": ("h = self.a(x)\n        return F.rrelu(h, training=self.training)", ("rrelu",)),
    "in a generator handed on": ("h = self.a(x)\n        return sum(f(h) for f in (F.relu, F.gelu))", ("relu",)),
    "by its name": ("h = self.a(x)\n        return getattr(F, self.name)(h)", ("getattr",)),
    "from a list": ("h = self.a(x)\n        return self.acts[self.index](h)", ("acts", "nn.ModuleList")),
}


def of_lines(lines: str) -> nn.Module:
    init = "self.acts = [nn.ReLU(), nn.Tanh()]" if "self.acts" in lines else "pass"
    text = f"""
class Lines(Net):
    def __init__(self):
        super().__init__()
        self.name, self.rate, self.index = "relu", 0.2, 0
        self.slope = nn.Parameter(torch.ones(6))
        {init}
    def forward(self, x):
        {lines}"""
    return written(text).Lines()


@pytest.mark.parametrize("name", LINES)
def test_a_use_that_cannot_be_exchanged_is_named_with_its_line(name: str) -> None:
    """Found or refused: a refusal names the module, the line and the function."""
    lines, texts = LINES[name]
    block = of_lines(lines)
    model = Parent(block)
    line = block.forward.__code__.co_firstlineno + 2
    report = find_sites(model)
    if not report.unreachable:
        supernet = relax(model, ["relu", "tanh"], normaliser="affine", init="original", kernel="reference")
        assert len(supernet.mixtures()) >= 2
        for rate in (0.2, 0.7):
            block.rate = supernet.model.block.rate = rate
            torch.manual_seed(0)
            expected = model(batch(0))
            torch.manual_seed(0)
            assert torch.equal(supernet(batch(0)), expected)
        return
    assert_refused(model, "block", *texts)
    if name != "from a list":
        assert f"line {line}" in report.unreachable[0].reason or f":{line}" in report.unreachable[0].reason
    assert_the_rest_is_searched(model)


def test_activations_in_a_plain_list_are_refused_with_what_to_do() -> None:
    class Listed(Net):
        def __init__(self, acts: Any) -> None:
            super().__init__()
            self.acts = acts

        def forward(self, x: Tensor) -> Tensor:
            for layer, act in zip((self.a, self.b), self.acts, strict=True):
                x = act(layer(x))
            return x

    for acts in ([nn.ReLU(), nn.PReLU()], (nn.ReLU(), nn.Tanh()), [F.relu, torch.tanh], [nn.ReLU(), F.gelu]):
        assert_refused(Parent(Listed(acts)), "block", "acts", "nn.ModuleList")
    model = Parent(Listed(nn.ModuleList([nn.ReLU(), nn.Tanh()])))
    assert len(find_sites(model).sites) == 3


def test_activations_in_a_plain_dictionary_are_refused_with_what_to_do() -> None:
    class ByName(Net):
        def __init__(self) -> None:
            super().__init__()
            self.acts, self.name = {"relu": nn.ReLU(), "tanh": nn.Tanh()}, "relu"

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.acts[self.name](self.a(x)))

    assert_refused(Parent(ByName()), "block", "acts", "nn.ModuleDict")


def test_how_many_cases_there_are() -> None:
    assert len(LINES) == 9
