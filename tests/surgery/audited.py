"""Small models with markers at their sites, for the tests of the audit and of its data flow."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from nasact.surgery.audit import Audit, markers, run_audit

X = torch.linspace(-2, 2, 24).reshape(4, 6)


def audit(model: nn.Module, example: Any = X) -> Audit:
    """The audit of a copy of `model` in which every module that is called `site...` has a marker."""
    copied = deepcopy(model)
    originals = {path: module for path, module in copied.named_modules() if path.rpartition(".")[2].startswith("site")}
    marks = markers(originals)
    for path, mark in marks.items():
        copied.set_submodule(path, mark)
    return run_audit(copied, marks, example)


class Net(nn.Module):
    """A model whose forward is a function of (model, x)."""

    def __init__(self, function: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(6, 6)
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)
