"""The models a study can name, and the one function that turns a name into a checked, deterministic module.

A record here is what the CLI lists, what studies accept and what the tests try; a name with a colon is the user's own
factory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nasact.errors import ModelError, UnknownName, error_line
from nasact.registry import Registry
from nasact.tasks import plain_nets, torchvision_nets
from nasact.tasks.import_path import call_user_code, import_callable, is_import_path
from nasact.tasks.residual import residual
from nasact.tasks.shapes import Shape
from nasact.tasks.signature_options import FactoryRecord, check_options
from nasact.tasks.vit import tiny_vit
from nasact.training.seeds import RandomStream


@dataclass(frozen=True, kw_only=True)
class ModelRecord(FactoryRecord):
    """A model: `build(input_shape=, classes=, **options)`, and what `nasact list models` shows of it."""

    supplied: ClassVar[tuple[str, ...]] = ("input_shape", "classes")
    """The parameters of `build` that nasact supplies itself; all others are options of the user."""

    name: str
    build: Callable[..., nn.Module]
    description: str
    source: str
    inputs: str
    activation: str = "relu"

    @property
    def factory(self) -> Callable[..., nn.Module]:
        """The function whose signature declares the options."""
        return self.build


MODELS: Registry[ModelRecord] = Registry("model", "nasact list models")


def register_model(record: ModelRecord) -> ModelRecord:
    return MODELS.register(record.name, record)


_THESIS = "thesis on trainable activation functions"
_RECORDS = (
    ModelRecord(
        name="mlp",
        build=plain_nets.mlp,
        description="dense layers",
        source="standard",
        inputs="any shape",
    ),
    ModelRecord(
        name="small_cnn",
        build=plain_nets.small_cnn,
        description="convolutions 32, 64, 64 and a dense layer of 64",
        source=f"{_THESIS}, table 1",
        inputs="images from 18 x 18",
    ),
    ModelRecord(
        name="small_cnn_regularised",
        build=plain_nets.small_cnn_regularised,
        description="small_cnn with dropout (its rate is not published: 0.5)",
        source=f"{_THESIS}, table 2",
        inputs="images from 18 x 18",
    ),
    ModelRecord(
        name="bansal_cnn",
        build=plain_nets.bansal_cnn,
        description="two convolutions, two dense layers, functional calls",
        source="Bansal 2022, Activation Functions: Dive into an optimal activation function",
        inputs="images from 4 x 4",
    ),
    ModelRecord(
        name="lenet5",
        build=plain_nets.lenet5,
        description="two 5 x 5 convolutions (20, 50) and a dense layer of 500",
        source="Manessi and Rozza 2018, Learning combinations of activation functions",
        inputs="images from 16 x 16",
    ),
    ModelRecord(
        name="residual",
        build=residual,
        description="compact ResNet of depth 8, 14, 20, ... with BatchNorm, functional calls",
        source=f"arXiv:1512.03385; {_THESIS}, table 12",
        inputs="images of any size",
    ),
    ModelRecord(
        name="tiny_vit",
        build=tiny_vit,
        description="small vision transformer, 4 x 4 patches",
        source="arXiv:2010.11929, made small",
        inputs="images with sides that are multiples of the patch",
        activation="gelu",
    ),
    ModelRecord(
        name="resnet18",
        build=torchvision_nets.resnet18,
        description="torchvision's, untrained",
        source="arXiv:1512.03385",
        inputs="images of any size",
    ),
    ModelRecord(
        name="mobilenet_v3_small",
        build=torchvision_nets.mobilenet_v3_small,
        description="torchvision's, untrained",
        source="arXiv:1905.02244",
        inputs="images of any size",
        activation="relu, hard_swish, hard_sigmoid",
    ),
    ModelRecord(
        name="vit_b_16",
        build=torchvision_nets.vit_b_16,
        description="torchvision's, untrained, 86 million parameters",
        source="arXiv:2010.11929",
        inputs="square images with sides of 16, 32, 48, ...",
        activation="gelu",
    ),
    ModelRecord(
        name="convnext_tiny",
        build=torchvision_nets.convnext_tiny,
        description="torchvision's, untrained, 28 million parameters",
        source="arXiv:2201.03545",
        inputs="images from 32 x 32",
        activation="gelu",
    ),
)
for _record in _RECORDS:
    register_model(_record)


def build_model(
    name: str, options: Mapping[str, Any], *, input_shape: tuple[int, ...], classes: int, seed: int
) -> nn.Module:
    """The model called `name` (or `pkg.mod:factory`), initialised by `seed` alone, proven on one small batch.

    The global random numbers are where they were afterwards.
    """
    place = f"model {name!r}"
    shape = tuple(input_shape)
    with RandomStream(seed):
        model = _build(name, options, shape, classes, place)
        # inside the stream: lazy modules draw their weights in the first pass
        _check_output(model, shape, classes, place)
    return model


def _build(name: str, options: Mapping[str, Any], shape: Shape, classes: int, place: str) -> nn.Module:
    if is_import_path(name):
        factory = import_callable(name, place=place, error=ModelError)
        supplied = {"input_shape": shape, "classes": classes, "num_classes": classes}
        model = call_user_code(factory, options, supplied, place=place, error=ModelError)
        if not isinstance(model, nn.Module):
            raise ModelError(f"{place}: must return a torch.nn.Module, but returned {_describe(model)}")
        return model
    if name not in MODELS and "." in name:
        raise UnknownName(f"{MODELS.unknown(name)}; your own factory is written 'package.module:function'")
    record = MODELS.get(name)
    checked = check_options(record.build, options, supplied=record.supplied, place=place, error=ModelError)
    return record.build(input_shape=shape, classes=classes, **checked)


def _check_output(model: nn.Module, shape: Shape, classes: int, place: str) -> None:
    """One pass of two examples in eval mode; every module's mode is put back."""
    modes = {module: module.training for module in model.modules()}
    first = next(iter(model.parameters()), None)
    device = first.device if first is not None else torch.device("cpu")
    x = torch.randn((2, *shape), device=device)
    model.eval()
    try:
        with torch.no_grad():
            out = model(x)
    except Exception as failure:
        raise ModelError(f"{place}: fails on a batch of shape {tuple(x.shape)}: {error_line(failure)}") from failure
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(out, Tensor):
        raise ModelError(f"{place}: must compute a tensor of shape (N, {classes}), but computed {_describe(out)}")
    if tuple(out.shape) != (2, classes):
        raise ModelError(
            f"{place}: must compute one score a class, shape (2, {classes}) for a batch of shape {tuple(x.shape)}, "
            f"but computed {tuple(out.shape)}"
        )


def _describe(value: object) -> str:
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else type(value).__name__
