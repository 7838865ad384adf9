"""Modules around the module of a site, where the code around the site overwrites tensors."""

from __future__ import annotations

from torch import Tensor, nn


class WriteBack(nn.Module):
    """Applies a module and writes the result to its input, as the model's own in-place activation does.

    Whatever reads the input later, also through another name or a view, reads the result.
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return x.copy_(self.function(x.clone()))


class Copied(nn.Module):
    """Applies a module to a copy of its input, or returns a copy of its result, because the original is overwritten.

    A function may need its input or its result for its gradient; the model's own function does not.
    """

    def __init__(self, function: nn.Module, copies_input: bool, copies_output: bool) -> None:
        super().__init__()
        self.function, self.copies_input, self.copies_output = function, copies_input, copies_output

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x.clone() if self.copies_input else x)
        return result.clone() if self.copies_output else result
