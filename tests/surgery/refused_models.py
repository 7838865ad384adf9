"""What a refusal looks like: one line, from every function of surgery, with the rest of the model left to search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from equivalence import batch
from torch import Tensor, nn

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, find_sites, relax


class Parent(nn.Module):
    """A model with a block of another kind, and an ordinary site."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.act, self.out = block, nn.Tanh(), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.block(x)))


def refusals(model: nn.Module) -> Iterator[str]:
    """The refusal of each function of surgery that promises all sites, and what `find_sites` reports."""
    for call in (lambda: relax(model), lambda: Genotype.uniform(model, "tanh"), lambda: Genotype.original(model)):
        with pytest.raises(SurgeryError) as caught:
            call()
        yield str(caught.value)
    yield "; ".join(f"{each.name!r}: {each.reason}" for each in find_sites(model).unreachable)


def assert_refused(model: nn.Module, *texts: str) -> None:
    for refusal in refusals(model):
        assert "\n" not in refusal
        for text in texts:
            assert text in refusal, f"{text!r} is not in {refusal!r}"


def assert_the_rest_is_searched(model: nn.Module) -> None:
    supernet = relax(model, ["relu", "tanh"], normaliser="affine", init="original", kernel="reference", partial=True)
    assert "act" in supernet.mixtures()
    torch.manual_seed(0)
    expected = model(batch(0))
    torch.manual_seed(0)
    assert torch.equal(supernet(batch(0)), expected)
