"""`gdas`, `drnas`, `fair` and `gaea` without their extras equal first-order `darts` with the same normaliser."""

from __future__ import annotations

import pytest
import torch
from bilevel_problems import OPTIMISERS, batches, flat, tensor_copies, tiny_supernet
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.bilevel import STRATEGIES, StepReport, Strategy
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.drnas import DrNAS
from nasact.bilevel.strategies.fair import Fair
from nasact.bilevel.strategies.first_order_alternating import FirstOrder
from nasact.bilevel.strategies.gaea import GAEA
from nasact.bilevel.strategies.gdas import GDAS
from nasact.bilevel.strategies.state import darts_adam


class GaeaWithoutExtras(GAEA):
    """`gaea` with DARTS' Adam; its preparation changes only rows with a zero, and a uniform start has none."""

    def build_alpha_optimiser(self, alphas: list[nn.Parameter]) -> torch.optim.Optimizer:
        return darts_adam(alphas, lr=self.lr)


def search(strategy: Strategy, normaliser: str) -> tuple[list[StepReport], Tensor, Tensor]:
    """Return the reports of four steps, all parameters and buffers, and the state of the random generator."""
    supernet = tiny_supernet(normaliser=normaliser)
    state = strategy.init(supernet, OPTIMISERS["sgd_momentum"](supernet.weight_parameters()), F.cross_entropy)
    torch.manual_seed(5)
    reports = [strategy.step(state, *batches(seed=step)) for step in range(4)]
    return reports, flat(tensor_copies(supernet).values()), torch.get_rng_state()


@pytest.mark.parametrize(
    "preset",
    [GDAS(lr=0.01), DrNAS(lr=0.01, pull=0.0), Fair(lr=0.01, scale=0.0), GaeaWithoutExtras(lr=0.01)],
    ids=lambda preset: type(preset).__name__,
)
def test_a_preset_without_its_extras_equals_first_order_darts_to_the_bit(preset: FirstOrder) -> None:
    (normaliser,) = preset.normalisers
    reports, values, generator = search(preset, normaliser)
    darts_reports, darts_values, darts_generator = search(DARTS(order=1, lr=0.01), normaliser)
    assert reports == darts_reports
    assert same_bits(values, darts_values)
    assert torch.equal(generator, darts_generator)


@pytest.mark.parametrize(
    ("preset", "without_extras"),
    [(DrNAS(), DrNAS(pull=0.0)), (Fair(), Fair(scale=0.0)), (GAEA(lr=0.01), GaeaWithoutExtras(lr=0.01))],
    ids=lambda preset: type(preset).__name__,
)
def test_the_extras_of_a_preset_change_its_steps(preset: FirstOrder, without_extras: FirstOrder) -> None:
    (normaliser,) = preset.normalisers
    assert not same_bits(search(preset, normaliser)[1], search(without_extras, normaliser)[1])


def test_the_presets_are_first_order_records() -> None:
    presets = {name for name, cls in STRATEGIES.items() if issubclass(cls, FirstOrder)}
    assert presets >= {"gdas", "drnas", "fair", "gaea"}
