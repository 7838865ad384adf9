"""Build a model by its name in a study: a registered name, or the import path of the user's own factory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nasact.errors import ModelError, UnknownName, error_line
from nasact.tasks.describe import describe
from nasact.tasks.import_path import call_user_code, import_callable, is_import_path
from nasact.tasks.models.base import MODELS
from nasact.tasks.models.image_shapes import Shape
from nasact.tasks.signature_options import check_options
from nasact.training.seeds import RandomStream


def build_model(
    name: str, options: Mapping[str, Any], *, input_shape: tuple[int, ...], classes: int, seed: int
) -> nn.Module:
    """Build the model `name` (or `pkg.mod:factory`) and check its output on a batch of two examples.

    The initial weights depend only on `seed`; the global random state is restored afterwards.
    """
    place = f"model {name!r}"
    shape = tuple(input_shape)
    with RandomStream(seed):
        model = _build(name, options, shape, classes, place)
        # inside the random stream, because lazy modules draw their weights in their first forward pass
        _check_output(model, shape, classes, place)
    return model


def _build(name: str, options: Mapping[str, Any], shape: Shape, classes: int, place: str) -> nn.Module:
    if is_import_path(name):
        factory = import_callable(name, place=place, error=ModelError)
        supplied = {"input_shape": shape, "classes": classes, "num_classes": classes}
        model = call_user_code(factory, options, supplied, place=place, error=ModelError)
        if not isinstance(model, nn.Module):
            raise ModelError(f"{place}: must return a torch.nn.Module, but returned {describe(model)}")
        return model
    if name not in MODELS and "." in name:
        raise UnknownName(f"{MODELS.unknown(name)}; your own factory is written 'package.module:function'")
    record = MODELS.get(name)
    checked = check_options(record.build, options, supplied=record.supplied, place=place, error=ModelError)
    return record.build(input_shape=shape, classes=classes, **checked)


def _check_output(model: nn.Module, shape: Shape, classes: int, place: str) -> None:
    """Run two random examples through the model in eval mode, and restore the mode of every module.

    Raise ModelError if the pass fails or the output is not of shape (2, classes).
    """
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
        raise ModelError(f"{place}: must compute a tensor of shape (N, {classes}), but computed {describe(out)}")
    if tuple(out.shape) != (2, classes):
        raise ModelError(
            f"{place}: must compute one score per class, shape (2, {classes}) for a batch of shape {tuple(x.shape)}, "
            f"but computed {tuple(out.shape)}"
        )
