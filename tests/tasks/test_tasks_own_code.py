"""The user's own datasets and models by import path: what is accepted, and the message for each mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nasact.errors import DataError, ModelError
from nasact.tasks import Data, build_model, load_data

XY = """
import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset
from nasact.tasks import Data, Split, TestSet

def pair(count, shift=0):
    x = torch.arange(count * 4, dtype=torch.float32).view(count, 4) + shift
    return x, torch.arange(count) % 3
"""

ACCEPTED = {
    "tensors": "def make(): return pair(30), pair(9)",
    "arrays": "def make(): return tuple((x.numpy(), y.numpy()) for x, y in (pair(30), pair(9)))",
    "double arrays and small integers": """
def make():
    return tuple((x.numpy().astype("float64"), y.numpy().astype("uint8")) for x, y in (pair(30), pair(9)))
""",
    "lists": "def make(): return [[x.tolist(), y.tolist()] for x, y in (pair(30), pair(9))]",
    "splits": "def make(): return Split(*pair(30)), Split(*pair(9))",
    "tensor datasets": "def make(): return TensorDataset(*pair(30)), TensorDataset(*pair(9))",
    "map-style datasets": """
class Own(Dataset):
    def __init__(self, count): self.x, self.y = pair(count)
    def __len__(self): return len(self.y)
    def __getitem__(self, index): return self.x[index].numpy(), int(self.y[index])

def make(): return Own(30), Own(9)
""",
    "a test set made on opening": "def make(): return pair(30), lambda: pair(9)",
    "own validation examples": "def make(): return pair(24), pair(6), pair(9)",
    "a Data": """
def make():
    return Data("mine", Split(*pair(24)), Split(*pair(6)), 3, (4,), TestSet(lambda: Split(*pair(9))))
""",
}


def load(path: str, **options: object) -> Data:
    return load_data(path, options, validation=0.2, seed=0)


@pytest.mark.parametrize("form", ACCEPTED)
@pytest.mark.usefixtures("global_random_state_unchanged")
def test_a_function_may_return_every_accepted_form(form, user_module):
    data = load(f"{user_module(XY + ACCEPTED[form])}:make")
    assert (data.classes, data.input_shape) == (3, (4,))
    assert (len(data.train), len(data.val), len(data.test.open())) == (24, 6, 9)
    assert torch.equal((data.train.x[:, 0] / 4).long() % 3, data.train.y)


def test_the_working_directory_is_importable_during_the_call_only(user_module, tmp_path):
    (tmp_path / "imported_by_own_code.py").write_text("count = 30\n")
    module = user_module(
        XY + "def make():\n    import imported_by_own_code\n    return pair(imported_by_own_code.count), pair(9)\n"
    )
    before = list(sys.path)
    assert len(load(f"{module}:make").train) == 24
    assert sys.path == before


def test_a_function_receives_options_seed_and_data_dir_that_its_signature_names(user_module, tmp_path):
    module = user_module(
        XY
        + """
def make(count, seed, data_dir=None):
    assert seed == 7 and str(data_dir) == "somewhere", (seed, data_dir)
    return pair(count), pair(9)
"""
    )
    data = load_data(f"{module}:make", {"count": 50}, validation=0.2, seed=7, data_dir=Path("somewhere"))
    assert len(data.train_and_val()) == 50


def test_random_data_of_a_user_depends_on_the_seed_only(user_module):
    module = user_module(
        XY
        + """
def make():
    return (torch.rand(30, 2), torch.arange(30) % 3), (torch.from_numpy(np.random.rand(9, 2)), torch.arange(9) % 3)
"""
    )
    first, second = load(f"{module}:make"), load(f"{module}:make")
    assert torch.equal(first.train.x, second.train.x)
    assert torch.equal(first.test.open().x, second.test.open().x)


def test_labels_of_the_test_part_are_checked_when_it_is_opened(user_module):
    data = load(f"{user_module(XY + 'def make(): return pair(30), (pair(9)[0], torch.arange(9))')}:make")
    with pytest.raises(DataError, match=r"test\.y\[3\]: labels must be in \[0, 3\), but got 3"):
        data.test.open()


BAD_DATA = {
    "returns None": ("def make(): pass", "must return a nasact.tasks.Data, .*but returned None"),
    "returns one tensor": ("def make(): return pair(3)[0]", r"but returned Tensor of shape \(3, 4\)"),
    "returns four": ("def make(): return 1, 2, 3, 4", "but returned a tuple of 4"),
    "returns x and y": (
        "def make(): return pair(9)",
        r"train: expected an \(x, y\) pair .*got Tensor of shape \(9, 4\)",
    ),
    "test is a word": ("def make(): return pair(9), 'test'", "test: expected .* but got str 'test'"),
    "raises": ("def make(): raise ValueError('two\\nlines')", "raised ValueError: two lines"),
    "exits": ("def make(): raise SystemExit(1)", "raised SystemExit: 1"),
    "bytes as examples": (
        "def make(): return (pair(9)[0].to(torch.uint8), pair(9)[1]), pair(9)",
        r"train\.x: expected floating-point numbers, but got torch\.uint8: scale them",
    ),
    "float labels": (
        "def make(): return (pair(9)[0], pair(9)[0][:, 0]), pair(9)",
        r"train\.y: expected whole numbers as labels, but got torch\.float32",
    ),
    "ragged": (
        "def make(): return ([[1.0], [1.0, 2.0]], [0, 1]), pair(9)",
        r"train\.x: cannot be converted to a tensor",
    ),
    "nan": ("def make(): return (pair(9)[0] / 0, pair(9)[1]), pair(9)", r"train\.x\[0\]: every value must be finite"),
    "negative label": ("def make(): return (pair(9)[0], pair(9)[1] - 1), pair(9)", r"train\.y\[0\]: labels must be in"),
    "lengths": ("def make(): return (pair(9)[0], pair(8)[1]), pair(9)", "one label per example.* 9 examples, 8 labels"),
    "empty": ("def make(): return pair(0), pair(9)", "at least 2 classes are needed, but got 0"),
    "one class": (
        "def make(): return (pair(9)[0], pair(9)[1] * 0), pair(9)",
        "at least 2 classes are needed, but got 1",
    ),
    "its own Data is wrong": (
        "def make(): return Data('mine', Split(*pair(9)), Split(*pair(9)), 2, (4,), TestSet(None))",
        r"dataset 'mine': train\.y\[2\]: labels must be in \[0, 2\)",
    ),
    "a dataset without a length": (
        "from torch.utils.data import IterableDataset\n"
        "class Stream(IterableDataset):\n def __iter__(self): return iter([pair(1)])\n"
        "def make(): return Stream(), pair(9)",
        "train: expected a Dataset with a length, but got Stream",
    ),
    "a dataset of single things": (
        "class D(Dataset):\n def __len__(self): return 3\n def __getitem__(self, i): return torch.zeros(4)\n"
        "def make(): return D(), pair(9)",
        r"train\[0\]: expected an \(x, y\) pair, but got Tensor of shape \(4,\)",
    ),
    "a dataset of pictures": (
        "from PIL import Image\n"
        "class D(Dataset):\n def __len__(self): return 3\n def __getitem__(self, i): return Image.new('L', (4, 4)), 0\n"
        "def make(): return D(), pair(9)",
        r"train\[0\]: x must be a tensor or an array, but is Image",
    ),
    "a dataset of changing shapes": (
        "class D(Dataset):\n def __len__(self): return 3\n def __getitem__(self, i): return torch.zeros(i + 1), 0\n"
        "def make(): return D(), pair(9)",
        r"train\[1\]: expected the shape \(1,\), but got \(2,\)",
    ),
    "a dataset that raises": (
        "class D(Dataset):\n def __len__(self): return 3\n def __getitem__(self, i): raise KeyError(i)\n"
        "def make(): return D(), pair(9)",
        r"train\[0\]: raised KeyError: 0",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_a_wrong_return_value_is_refused_with_what_was_returned_and_expected(case, user_module):
    source, message = BAD_DATA[case]
    path = f"{user_module(XY + source)}:make"
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"dataset {path!r}: ")
    assert "\n" not in str(caught.value)


def test_an_import_path_that_cannot_be_resolved_is_refused_with_the_part_that_is_missing(user_module, tmp_path):
    module = user_module("def make_splits(): pass\nconstant = 3\n")
    broken = user_module("import nowhere_to_be_found\n")
    syntax = user_module("def make(:\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "pictures.py").write_text("")
    cases = {
        "own_packag:make": "no module named 'own_packag'. Did you mean 'own_package'?",
        "own_package.picture:make": "no module named 'own_package.picture'. Did you mean 'own_package.pictures'?",
        "nowhere.at.all:make": "no module named 'nowhere'.",
        f"{module}:make_split": f"{module!r} has no attribute 'make_split'. Did you mean 'make_splits'?",
        f"{module}:make_splits.of": f"'{module}.make_splits' has no attribute 'of'.",
        f"{module}:constant": "must be a function or a class, but is int",
        f"{broken}:make": f"importing {broken!r} failed: ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        f"{syntax}:make": f"importing {syntax!r} failed: SyntaxError: ",
        f"{module}:": "an import path is written 'package.module:function'",
        ":make": "an import path is written 'package.module:function'",
        "./mine.py:make": "an import path is written 'package.module:function'",
    }
    for path, expected in cases.items():
        with pytest.raises(DataError) as caught:
            load(path)
        assert expected in str(caught.value)
        assert str(caught.value).startswith(f"dataset {path!r}: ")
        with pytest.raises(ModelError) as caught_model:
            build_model(path, {}, input_shape=(4,), classes=3, seed=0)
        assert expected in str(caught_model.value)


def test_options_of_a_function_are_checked_against_its_signature(user_module):
    module = user_module(XY + "def make(count, noise=0.0): return pair(count), pair(9)")
    with pytest.raises(DataError, match=r"unknown option 'cuont'\. Did you mean 'count'\? \(options: count, noise\)"):
        load(f"{module}:make", cuont=3)
    with pytest.raises(DataError, match="option 'count' is missing"):
        load(f"{module}:make")


MODEL_FACTORIES = {
    "classes": "def make(input_shape, classes): return net(input_shape[0], classes)",
    "num_classes": "def make(*, num_classes, hidden=8): return net(4, num_classes, hidden)",
    "nothing": "def make(): return net(4, 3)",
    "anything": "def make(**options): return net(4, 3, **options)",
    "a class": "class make(nn.Module):\n"
    " def __init__(self, classes):\n  super().__init__(); self.net = net(4, classes)\n"
    " def forward(self, x): return self.net(x)",
    "lazy": "def make(classes): return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(classes))",
}
NET = """
from torch import nn
def net(inputs, classes, hidden=8):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))
"""


@pytest.mark.parametrize("form", MODEL_FACTORIES)
@pytest.mark.usefixtures("global_random_state_unchanged")
def test_a_factory_receives_what_its_signature_names_and_is_initialised_by_the_seed(form, user_module):
    path = f"{user_module(NET + MODEL_FACTORIES[form])}:make"
    first, second, other = (build_model(path, {}, input_shape=(4,), classes=3, seed=seed) for seed in (1, 1, 2))
    assert first(torch.zeros(5, 4)).shape == (5, 3)
    for one, two, three in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)


def test_a_factory_receives_options(user_module):
    path = f"{user_module(NET + MODEL_FACTORIES['num_classes'])}:make"
    model = build_model(path, {"hidden": 17}, input_shape=(4,), classes=3, seed=0)
    assert model[0].out_features == 17


BAD_MODELS = {
    "not a module": ("def make(): return net", "must return a torch.nn.Module, but returned function"),
    "nothing": ("def make(): pass", "must return a torch.nn.Module, but returned None"),
    "other classes": (
        "def make(): return net(4, 10)",
        r"shape \(2, 3\) for a batch of shape \(2, 4\), but computed \(2, 10\)",
    ),
    "other inputs": ("def make(): return net(5, 3)", r"fails on a batch of shape \(2, 4\): RuntimeError: "),
    "two outputs": (
        "class make(nn.Module):\n def forward(self, x): return x, x",
        r"must compute a tensor of shape \(N, 3\), but computed a tuple of 2",
    ),
    "raises": ("def make(): return nn.Linear(4, -1.5)", "raised TypeError: "),
    "unknown option": ("def make(hidden=3): return net(4, 3)", r"unknown option 'hiden'\. Did you mean 'hidden'"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_wrong_factory_is_refused_in_one_line(case, user_module):
    source, message = BAD_MODELS[case]
    path = f"{user_module(NET + source)}:make"
    options = {"hiden": 3} if case == "unknown option" else {}
    with pytest.raises(ModelError, match=message) as caught:
        build_model(path, options, input_shape=(4,), classes=3, seed=0)
    assert str(caught.value).startswith(f"model {path!r}: ")
    assert "\n" not in str(caught.value)


def test_the_check_of_the_output_changes_no_mode_and_no_buffer(user_module):
    module = user_module(
        NET
        + """
def make():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Dropout())
    model[0].eval()
    return model
"""
    )
    model = build_model(f"{module}:make", {}, input_shape=(4,), classes=3, seed=0)
    assert isinstance(model, nn.Sequential)
    assert [part.training for part in model] == [False, True, True]
    assert int(model[0].num_batches_tracked) == 0
