"""The training loops are deterministic, resume at every epoch and report a loss that is not finite."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasact.bilevel import build
from nasact.bilevel.strategies.updates import move_alpha
from nasact.errors import DataError, Divergence
from nasact.supernet import relax
from nasact.training.loop import SEARCH_METRICS, Epoch, FitState, SearchRun, begin_fit, begin_search, fit, search
from nasact.training.optimisers import OPTIMISERS
from nasact.training.schedule import Exponential


@dataclass(frozen=True)
class Options:
    name: str = "adam"
    lr: float = 1e-2
    weight_decay: float = 1e-4
    momentum: float = 0.9


@dataclass(frozen=True)
class Examples:
    x: Tensor
    y: Tensor


def examples(count: int, seed: int) -> Examples:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return Examples(x, (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long())


TRAIN, VAL = examples(97, 1), examples(40, 2)


def network() -> nn.Module:
    # dropout and BatchNorm: random masks and buffers must be resumed too
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3))


def fit_state(options: Options) -> FitState:
    return begin_fit(network(), options, seed=3)


def search_run(strategy: str, options: dict[str, Any]) -> SearchRun:
    supernet = relax(network(), ("relu", "tanh", "sigmoid"))
    return begin_search(supernet, build(strategy, options), Options(), seed=3, schedule=Exponential(1.0, 0.1))


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def without_seconds(epochs: list[Epoch]) -> list[tuple[int, dict[str, float]]]:
    return [(e.epoch, {name: v for name, v in e.metrics.items() if name != "seconds"}) for e in epochs]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def disturb_global_random_numbers() -> None:
    torch.manual_seed(int(torch.randint(1000, ())))


def test_fit_lowers_the_training_loss() -> None:
    losses = [e.metrics["train_loss"] for e in fit(fit_state(Options()), TRAIN, epochs=15, batch_size=16)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", OPTIMISERS.names())
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_fit_equals_an_uninterrupted_fit(name: str, stop: int) -> None:
    whole = fit_state(Options(name=name))
    expected = list(fit(whole, TRAIN, epochs=5, batch_size=16))

    first = fit_state(Options(name=name))
    epochs = []
    for epoch in fit(first, TRAIN, epochs=5, batch_size=16):
        epochs.append(epoch)
        disturb_global_random_numbers()
        if epoch.epoch == stop:
            break
    second = fit_state(Options(name=name))
    second.load_state_dict(through_a_file(first.state_dict()))
    epochs += list(fit(second, TRAIN, epochs=5, batch_size=16))
    assert without_seconds(epochs) == without_seconds(expected)
    assert same(second.state_dict(), whole.state_dict())


STRATEGIES = [
    ("joint", {}),
    ("darts", {"order": 1}),
    ("darts", {"order": 2}),
    ("unrolled", {}),
    ("cycles", {}),
    ("cycles", {"loss": "val"}),
    ("shrink", {}),
    ("random", {}),
]


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES, ids=str)
def test_a_resumed_search_equals_an_uninterrupted_search(strategy: str, options: dict[str, Any]) -> None:
    whole = search_run(strategy, options)
    expected = list(search(whole, TRAIN, VAL, epochs=4, batch_size=32))

    first = search_run(strategy, options)
    epochs = []
    for epoch in search(first, TRAIN, VAL, epochs=4, batch_size=32):
        epochs.append(epoch)
        disturb_global_random_numbers()
        if epoch.epoch == 2:
            break
    second = search_run(strategy, options)
    second.load_state_dict(through_a_file(first.state_dict()))
    epochs += list(search(second, TRAIN, VAL, epochs=4, batch_size=32))
    assert without_seconds(epochs) == without_seconds(expected)
    assert same(second.state_dict(), whole.state_dict())


def test_every_epoch_of_a_search_has_the_search_metrics_and_a_row_of_weights() -> None:
    run = search_run("darts", {"order": 2, "lr": 0.05})
    epochs = list(search(run, TRAIN, VAL, epochs=3, batch_size=32))
    assert len(SEARCH_METRICS) >= 6
    assert [epoch.metrics.keys() for epoch in epochs] == [SEARCH_METRICS.keys()] * 3
    assert [epoch.metrics["temperature"] for epoch in epochs] == pytest.approx([1.0, 0.1**0.5, 0.1])
    (rows,) = run.weights_over_time.values()
    assert len(rows) == 4
    assert rows[0] == pytest.approx([1 / 3] * 3)
    assert all(sum(row) == pytest.approx(1.0) for row in rows)
    assert rows[3] != rows[0]


def test_alpha_and_temperature_stay_at_their_start_during_the_warm_up() -> None:
    run = search_run("darts", {"order": 2, "lr": 0.05})
    run.warmup = 2
    before = [weight.detach().clone() for weight in run.supernet.weight_parameters()]
    epochs = list(search(run, TRAIN, VAL, epochs=4, batch_size=32))
    assert [epoch.metrics["temperature"] for epoch in epochs] == pytest.approx([1.0, 1.0, 1.0, 0.1])
    (rows,) = run.weights_over_time.values()
    assert rows[0] == rows[1] == rows[2]
    assert rows[3] != rows[2]
    assert all(not torch.equal(old, new) for old, new in zip(before, run.supernet.weight_parameters(), strict=True))


def test_the_check_before_the_first_step_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = search_run("darts", {"order": 2})
    next(search(checked, TRAIN, VAL, epochs=2, batch_size=32))
    monkeypatch.setattr("nasact.training.loop.check_search_moves", lambda *arguments: None)
    unchecked = search_run("darts", {"order": 2})
    next(search(unchecked, TRAIN, VAL, epochs=2, batch_size=32))
    assert same(checked.state_dict(), unchecked.state_dict())


def test_a_fit_that_diverges_names_the_epoch() -> None:
    poisoned = Examples(TRAIN.x.clone(), TRAIN.y)
    poisoned.x[5] = float("inf")
    with pytest.raises(Divergence, match=r"^retrain epoch 1, training loss: .* got nan"):
        list(fit(fit_state(Options()), poisoned, epochs=2, batch_size=16))


def test_a_search_that_diverges_names_the_epoch() -> None:
    run = search_run("darts", {"order": 1})
    generator = search(run, TRAIN, VAL, epochs=3, batch_size=32)
    next(generator)
    with torch.no_grad():
        run.supernet.weight_parameters()[0].fill_(float("nan"))
    with pytest.raises(Divergence, match=r"^search epoch 2, .*nan"):
        next(generator)


def test_an_empty_split_is_refused_before_anything_is_trained() -> None:
    empty = Examples(TRAIN.x[:0], TRAIN.y[:0])
    with pytest.raises(DataError, match="search: validation data: the split is empty"):
        next(search(search_run("joint", {}), TRAIN, empty, epochs=1, batch_size=8))
    with pytest.raises(DataError, match="retrain: training data: the split is empty"):
        next(fit(fit_state(Options()), empty, epochs=1, batch_size=8))


def alpha_lr_scales(run: SearchRun) -> list[float]:
    """The scale of alpha's learning rate in each of three epochs."""
    return [run.state.alpha_lr_scale for _ in search(run, TRAIN, VAL, epochs=3, batch_size=16)]


@pytest.mark.parametrize("normaliser", ["softmax", "sigmoid", "gumbel", "convex"])
def test_alphas_learning_rate_falls_with_the_temperature_for_functions_of_alpha_over_it(
    normaliser: str,
) -> None:
    supernet = relax(network(), ("relu", "tanh", "sigmoid"), normaliser=normaliser)
    run = begin_search(supernet, build("joint", {}), Options(), seed=3, schedule=Exponential(2.0, 0.02))
    scaled = normaliser in ("softmax", "sigmoid")
    assert alpha_lr_scales(run) == pytest.approx([1.0, 0.1, 0.01] if scaled else [1.0, 1.0, 1.0])
    assert [group["lr"] for group in run.state.alpha_optimiser.param_groups] == [3e-3]


def test_without_scale_alpha_lr_the_learning_rate_stays() -> None:
    supernet = relax(network(), ("relu", "tanh", "sigmoid"))
    schedule = Exponential(1.0, 0.1)
    run = begin_search(supernet, build("joint", {}), Options(), seed=3, schedule=schedule, scale_alpha_lr=False)
    assert alpha_lr_scales(run) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_a_step_scaled_by_its_temperature_moves_alpha_over_temperature_equally_far(temperature: float) -> None:
    supernet = relax(network(), ("relu", "tanh", "sigmoid"))
    run = begin_search(supernet, build("joint", {"lr": 1e-2}), Options(), seed=3)
    supernet.set_temperature(temperature)
    run.state.alpha_lr_scale = temperature
    (alpha,) = supernet.arch_parameters()
    before = alpha.detach().clone()
    # Adam's first step is the learning rate, whatever the size of a gradient
    move_alpha(run.state, (torch.tensor([1.0, -2.0, 1e-3]).reshape(alpha.shape),))
    moved = (alpha.detach() - before) / temperature
    torch.testing.assert_close(moved.flatten(), torch.tensor([-1e-2, 1e-2, -1e-2]), rtol=1e-3, atol=0)
