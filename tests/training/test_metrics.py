"""Evaluation computes means over examples and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nasact.errors import DataError, Divergence
from nasact.training.metrics import evaluate, require_finite


@dataclass(frozen=True)
class Examples:
    x: Tensor
    y: Tensor


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))


def examples(count: int) -> Examples:
    source = torch.Generator().manual_seed(1)
    return Examples(torch.randn(count, 3, generator=source), torch.randint(4, (count,), generator=source))


def test_loss_and_accuracy_are_means_over_examples_whatever_the_batches() -> None:
    model, split = network().eval(), examples(1024 + 300)
    with torch.no_grad():
        output = model(split.x)
    evaluation = evaluate(model, split)
    assert evaluation.loss == pytest.approx(cross_entropy(output, split.y).item(), abs=1e-6)
    assert evaluation.accuracy == (output.argmax(1) == split.y).sum().item() / 1324


def test_every_submodule_keeps_its_mode_and_no_buffer_changes() -> None:
    model = network().train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    evaluate(model, examples(20))
    assert [part.training for part in model.modules()] == modes == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_not_finite_raises_divergence_with_its_place() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with pytest.raises(Divergence, match=r"^search epoch 3, validation loss: .* got nan$"):
        evaluate(model, examples(20), place="search epoch 3, validation loss")
    with pytest.raises(Divergence, match="got inf"):
        require_finite(float("inf"), "here")
    assert require_finite(1.5, "here") == 1.5


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="the split is empty"):
        evaluate(network(), examples(0))
