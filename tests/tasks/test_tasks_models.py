"""Every registered model builds, computes and has gradients; the sizes are those of the sources."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from nasact.errors import ModelError, UnknownName
from nasact.tasks import MODELS, build_model

SHIPPED = ("mlp", "small_cnn", "small_cnn_regularised", "bansal_cnn", "lenet5", "residual", "tiny_vit")
TORCHVISION = ("resnet18", "mobilenet_v3_small", "vit_b_16", "convnext_tiny")
OWN = tuple(name for name in MODELS.names() if name not in TORCHVISION)
SMALL, GREY, COLOUR = (1, 8, 8), (1, 28, 28), (3, 32, 32)


def build(name: str, input_shape: tuple[int, ...] = COLOUR, *, seed: int = 0, **options: object) -> nn.Module:
    return build_model(name, options, input_shape=input_shape, classes=10, seed=seed)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_registry_has_the_shipped_models_with_complete_records():
    assert set(SHIPPED) <= set(OWN)
    assert set(TORCHVISION) <= set(MODELS.names())
    for name, record in MODELS.items():
        assert record.name == name
        assert all((record.description, record.source, record.inputs, record.activation))
        assert not set(record.supplied) & set(record.options)
    assert MODELS.get("mlp").options == {"hidden": (64, 64), "dropout": 0.0}


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_builds_computes_and_has_gradients(name):
    model = build(name)
    assert model.training
    torch.manual_seed(0)
    loss = cross_entropy(model(torch.randn(4, *COLOUR)), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.usefixtures("global_random_state_unchanged")
def test_initialisation_depends_on_the_seed_only(name):
    first, second, other = (build(name, seed=seed) for seed in (1, 1, 2))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    others = zip(first.parameters(), other.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in others)


@pytest.mark.parametrize("name", OWN)
def test_the_models_of_nasact_have_second_derivatives(name):
    model = build(name).eval()
    parameters = list(model.parameters())
    loss = cross_entropy(model(torch.randn(3, *COLOUR)), torch.tensor([0, 1, 2]))
    first = torch.autograd.grad(loss, parameters, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), parameters, allow_unused=True)
    assert any(gradient is not None and bool(gradient.any()) for gradient in second)


@pytest.mark.parametrize(
    ("name", "input_shape", "options"),
    [
        ("mlp", SMALL, {}),
        ("mlp", (20,), {"hidden": [5], "dropout": 0.5}),
        ("bansal_cnn", SMALL, {}),
        ("residual", SMALL, {"depth": 14}),
        ("tiny_vit", SMALL, {"patch": 2, "units": 8, "heads": 2, "depth": 1}),
        ("small_cnn", GREY, {"width": 0.25}),
        ("small_cnn_regularised", GREY, {"dropout": 0.2}),
        ("small_cnn", (1, 18, 40), {}),
        ("lenet5", (2, 16, 17), {}),
        ("tiny_vit", GREY, {}),
        ("mobilenet_v3_small", GREY, {"dropout": 0.0}),
        ("resnet18", GREY, {}),
    ],
)
def test_models_accept_images_of_other_sizes_and_channels(name, input_shape, options):
    assert build(name, input_shape, **options)(torch.zeros(2, *input_shape)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "input_shape", "options", "expected"),
    [
        # the thesis uses the network of a tutorial
        ("small_cnn", COLOUR, {}, 122_570),
        ("small_cnn_regularised", COLOUR, {}, 122_570),
        # 431k and 657k in the paper
        ("lenet5", GREY, {}, 431_080),
        ("lenet5", COLOUR, {}, 657_080),
        ("resnet18", COLOUR, {}, 11_181_642),
        # 0.27 M in He et al. 2015, table 6, which has no convolutions in its shortcuts (2,752 here)
        ("residual", COLOUR, {"depth": 20}, 272_474),
    ],
)
def test_sizes_are_those_of_the_sources(name, input_shape, options, expected):
    assert size(build(name, input_shape, **options)) == expected


def test_regularised_network_has_dropout_where_the_thesis_has_it():
    kinds = [type(part).__name__ for part in build("small_cnn_regularised").children()]
    assert kinds == [
        *("Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Dropout"),
        *("Conv2d", "ReLU", "Flatten", "Linear", "ReLU", "Dropout", "Linear"),
    ]


BAD_MODELS = {
    "too small": ("small_cnn", SMALL, {}, r"needs images of at least 18 x 18 .*but the data has 8 x 8"),
    "too small for lenet": ("lenet5", (1, 15, 40), {}, r"at least 16 x 16 .*but the data has 15 x 40"),
    "too small for convnext": ("convnext_tiny", GREY, {}, r"at least 32 x 32"),
    "not images": (
        "residual",
        (20,),
        {},
        r"needs images of shape \(channels, height, width\), but the data has \(20,\)",
    ),
    "vit sides": ("vit_b_16", GREY, {}, r"sides of 16, 32, 48, \.\.\., but the data has 28 x 28"),
    "patches": ("tiny_vit", GREY, {"patch": 5}, r"multiples of patch=5, but are 28 x 28"),
    "heads": ("tiny_vit", GREY, {"heads": 5}, r"units must be a multiple of heads, but got units=48, heads=5"),
    "depth": ("residual", GREY, {"depth": 18}, r"must be one of 8, 14, 20, \.\.\., but got 18\. Did you mean 20\?"),
    "unknown option": (
        "mlp",
        SMALL,
        {"hiden": [3]},
        r"unknown option 'hiden'\. Did you mean 'hidden'\? \(options: hidden",
    ),
    "an option that nasact supplies": ("mlp", SMALL, {"classes": 3}, r"unknown option 'classes'"),
    "a number for a list": ("mlp", SMALL, {"hidden": 64}, r"option 'hidden' must be .*, but got 64"),
    "no unit": (
        "mlp",
        SMALL,
        {"hidden": [64, 0]},
        r"option 'hidden' must be greater than or equal to 1, but got \[64, 0\]",
    ),
    "no layer": ("mlp", SMALL, {"hidden": []}, r"hidden must name at least one layer"),
    "a word for a number": ("mlp", SMALL, {"dropout": "0.5"}, r"option 'dropout' must be a number, but got '0\.5'"),
    "dropout above": ("mlp", SMALL, {"dropout": 1.0}, r"option 'dropout' must be less than 1, but got 1\.0"),
    "width": ("small_cnn", GREY, {"width": 0}, r"option 'width' must be greater than 0, but got 0"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_a_model_that_cannot_be_built_is_refused_in_one_line(case):
    name, input_shape, options, message = BAD_MODELS[case]
    with pytest.raises(ModelError, match=message) as caught:
        build(name, input_shape, **options)
    assert str(caught.value).startswith(f"model {name!r}: ")
    assert "\n" not in str(caught.value)


def test_an_unknown_model_is_refused_with_near_names():
    with pytest.raises(UnknownName, match=r"unknown model 'resnet19'\. Did you mean 'resnet18'"):
        build("resnet19")
    with pytest.raises(UnknownName, match=r"'package\.module:function'"):
        build("my_pkg.nets.make_net")


def test_importing_the_room_does_not_import_libraries_that_few_tasks_need():
    code = (
        "import sys, nasact.tasks; print([name for name in ('torchvision', 'sklearn', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
