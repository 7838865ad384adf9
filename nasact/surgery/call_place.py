"""Finds the place in a model's code that makes the running torch call: file, line, function, and module path.

It reads the frames of the running thread. Knows torch only.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import nn

_TORCH = str(Path(torch.__file__).parent) + os.sep
_SURGERY = str(Path(__file__).parent) + os.sep
_CHECKPOINT = "torch.utils.checkpoint"


def find_place(paths: Mapping[int, str], outermost: CodeType) -> tuple[str, int, str, str] | None:
    """File, line, function and module path of the running torch call; None if it is not a part of a model's forward.

    `paths`: the paths of the model's modules by id. `outermost`: the code that calls the model. The place is the
    innermost frame outside torch and this folder, ("", 0, "") if there is none; the module is the innermost that runs.
    The forward of a custom autograd.Function is not a part of it: it belongs to its backward.
    """
    author: tuple[str, int, str] | None = None
    module: str | None = None
    functions = _autograd_forwards()
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not outermost:
        code = frame.f_code
        if module is None:
            if code in functions:
                return None
            module = _running_module(frame, paths)
        if author is None and not code.co_filename.startswith((_TORCH, _SURGERY)):
            author = (code.co_filename, frame.f_lineno, code.co_qualname)
        frame = frame.f_back
    return (*(author or ("", 0, "")), module or "")


def _running_module(frame: FrameType, paths: Mapping[int, str]) -> str | None:
    """The path of the module of which a frame runs a method or a hook; None if its first argument is no module."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    first = frame.f_locals.get(names[0]) if names else None
    return paths.get(id(first)) if isinstance(first, nn.Module) else None


def _autograd_forwards() -> set[CodeType]:
    """The code of the forward of every custom autograd.Function; a checkpointed forward is the model's own."""
    found: set[CodeType] = set()
    classes = list(torch.autograd.Function.__subclasses__())
    while classes:
        each = classes.pop()
        classes.extend(each.__subclasses__())
        forward = inspect.unwrap(each.forward)
        if not each.__module__.startswith(_CHECKPOINT) and hasattr(forward, "__code__"):
            found.add(forward.__code__)
    return found
