"""What every registered strategy must do: a new strategy is tested here without a further line."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from bilevel_problems import OPTIMISERS, TinySupernet, batches, flat, normaliser_for, tensor_copies, tiny_supernet
from torch.nn import functional as F

from nasact.bilevel import STRATEGIES, Batch, SearchState, StepReport, Strategy, build, registered_name
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies import alpha_moves_from
from nasact.bilevel.strategies.cycles import Cycles
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.exponentiated_gradient import ExponentiatedGradient
from nasact.bilevel.strategies.implicit import Implicit
from nasact.bilevel.strategies.joint import Joint
from nasact.bilevel.strategies.shrink import Shrink
from nasact.bilevel.strategies.steps import weight_step
from nasact.bilevel.strategies.unrolled import Unrolled
from nasact.errors import Divergence, StoreError, StudyError, SurgeryError
from nasact.mixture import NORMALISERS

CASES: dict[str, Strategy] = {
    **{name: build(name, {}) for name in STRATEGIES.names()},
    "darts_order_1": DARTS(order=1),
    "darts_finite_difference": DARTS(mixed="finite_difference"),
    "darts_simultaneous": DARTS(update="simultaneous"),
    "darts_simultaneous_difference": DARTS(update="simultaneous", mixed="finite_difference"),
    "unrolled_3": Unrolled(steps=3),
    "cycles_val": Cycles(loss="val"),
    "shrink_order_2": Shrink(order=2),
    "shrink_counts": Shrink(counts="2, 1", weights_only=0.0),
    "implicit_conjugate_gradient": Implicit(method="conjugate_gradient", damping=1.0),
}
ALL = pytest.mark.parametrize("strategy", CASES.values(), ids=CASES)


def test_every_registered_strategy_is_among_the_cases() -> None:
    assert len(STRATEGIES) >= 11
    assert {type(strategy) for strategy in CASES.values()} == set(STRATEGIES.values())


def initial_state_of(
    strategy: Strategy, *, optimiser: str = "sgd_momentum", seed: int = 0, dtype=torch.float32
) -> SearchState:
    """Return a search at the progress at which the strategy starts to move alpha, 0 for most."""
    supernet = tiny_supernet(seed=seed, dtype=dtype, normaliser=normaliser_for(strategy))
    state = strategy.init(supernet, OPTIMISERS[optimiser](supernet.weight_parameters()), F.cross_entropy)
    state.progress = alpha_moves_from(strategy) or 0.0
    return state


def run(strategy: Strategy, state: SearchState, steps: int) -> list[StepReport]:
    return [strategy.step(state, *batches(seed=100 + state.step)) for _ in range(steps)]


def all_values(state: SearchState) -> torch.Tensor:
    memories = [
        value
        for optimiser in (state.weight_optimiser, state.alpha_optimiser)
        for memory in optimiser.state.values()
        for value in memory.values()
    ]
    return torch.cat([flat(tensor_copies(state.supernet).values()), flat(memories)])


@ALL
def test_alpha_and_w_move_and_the_report_holds_the_losses(strategy: Strategy) -> None:
    """In one step; in two steps, of which the second moves alpha, if the strategy starts with only the weights."""
    state = initial_state_of(strategy)
    before, moves_from = tensor_copies(state.supernet), alpha_moves_from(strategy)
    for state.progress in (0.0, moves_from) if moves_from else (0.0,):
        (report,) = run(strategy, state, 1)
    after = tensor_copies(state.supernet)
    unchanged = {name for name in before if same_bits(before[name], after[name])}
    frozen = {"act1.alpha", "act2.alpha"} if moves_from is None else set()
    assert unchanged == {"unused"} | frozen, "only what gets no gradient does not change, weight decay or not"
    assert state.supernet.unused.grad is None
    assert state.step == (2 if moves_from else 1)
    assert math.isfinite(report.train_loss)
    assert report.val_loss is None or math.isfinite(report.val_loss)


@ALL
def test_a_step_reports_a_validation_loss_if_it_depends_on_the_validation_data(strategy: Strategy) -> None:
    train, val = batches()
    ends, reports = [], []
    for validation in (val, Batch(val.x.flip(0), val.y)):
        state = initial_state_of(strategy)
        torch.manual_seed(0)
        reports.append(strategy.step(state, train, validation))
        ends.append(all_values(state))
    depends = not same_bits(*ends)
    assert [report.val_loss is not None for report in reports] == [depends, depends]
    assert reports[0].val_loss != reports[1].val_loss or not depends


START_WITH_FROZEN_ALPHA = {name: strategy for name, strategy in CASES.items() if alpha_moves_from(strategy) != 0.0}


def test_some_strategies_start_with_frozen_alpha() -> None:
    assert {"cycles", "cycles_val", "shrink", "shrink_order_2", "random"} <= set(START_WITH_FROZEN_ALPHA)


@pytest.mark.parametrize("strategy", START_WITH_FROZEN_ALPHA.values(), ids=START_WITH_FROZEN_ALPHA)
def test_no_bit_of_alpha_changes_before_alpha_moves_from(strategy: Strategy) -> None:
    state, moves_from = initial_state_of(strategy), alpha_moves_from(strategy)
    before = tensor_copies(state.supernet)
    for part in (0.0, 0.5, 0.999):
        state.progress = part * (1.0 if moves_from is None else moves_from)
        (report,) = run(strategy, state, 1)
        assert report.val_loss is None
    after = tensor_copies(state.supernet)
    assert all(same_bits(before[name], after[name]) for name in ("act1.alpha", "act2.alpha"))
    assert not same_bits(before["conv1.weight"], after["conv1.weight"])


@ALL
def test_same_seeds_give_the_same_bits(strategy: Strategy) -> None:
    ends = []
    for _ in range(2):
        state = initial_state_of(strategy)
        torch.manual_seed(11)
        reports = run(strategy, state, 3)
        ends.append((reports, all_values(state), torch.get_rng_state()))
    assert ends[0][0] == ends[1][0]
    assert same_bits(ends[0][1], ends[1][1])
    assert torch.equal(ends[0][2], ends[1][2])


@ALL
@pytest.mark.parametrize("optimiser", ["sgd_momentum", "adamw"])
def test_a_saved_and_loaded_state_continues_to_the_bit(strategy: Strategy, optimiser: str) -> None:
    state = initial_state_of(strategy, optimiser=optimiser)
    run(strategy, state, 2)
    saved, random = state.state_dict(), torch.get_rng_state()
    copy_of_saved = copy.deepcopy(saved)
    reports = run(strategy, state, 2)

    loaded = initial_state_of(strategy, optimiser=optimiser, seed=1)
    loaded.load_state_dict(saved)
    torch.set_rng_state(random)
    assert loaded.step == 2
    assert run(strategy, loaded, 2) == reports
    assert same_bits(all_values(loaded), all_values(state))
    # neither search changed the dictionary
    torch.testing.assert_close(saved, copy_of_saved, rtol=0, atol=0)


@ALL
def test_alpha_gradient_changes_only_the_state_of_the_generator(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    run(strategy, state, 1)
    before, memory = tensor_copies(state.supernet), all_values(state)
    grads = [None if p.grad is None else p.grad.clone() for p in state.supernet.parameters()]
    found = strategy.alpha_gradient(state, *batches())
    assert len(found.alpha) == 2
    assert all(same_bits(tensor, before[name]) for name, tensor in tensor_copies(state.supernet).items())
    assert same_bits(all_values(state), memory)
    for parameter, grad in zip(state.supernet.parameters(), grads, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or same_bits(parameter.grad, grad)
    assert state.step == 1


@ALL
def test_batchnorm_is_updated_once_per_step_in_train_mode_even_after_an_evaluation(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    state.supernet.eval()
    run(strategy, state, 3)
    assert state.supernet.training
    assert int(state.supernet.bn1.num_batches_tracked) == 3


@ALL
def test_batchnorm_that_the_user_set_to_eval_mode_stays_in_eval_mode(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    state.supernet.bn1.eval()
    run(strategy, state, 2)
    assert int(state.supernet.bn1.num_batches_tracked) == 0
    assert int(state.supernet.bn2.num_batches_tracked) == 2


@ALL
def test_alpha_is_projected_after_every_step(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    run(strategy, state, 3)
    assert state.supernet.projections == 3


@ALL
def test_alpha_has_a_separate_optimiser_without_weight_decay(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    (group,) = state.alpha_optimiser.param_groups
    assert (group["lr"], group.get("weight_decay", 0)) == (strategy.lr, 0)
    assert [id(p) for p in group["params"]] == [id(p) for p in state.supernet.arch_parameters()]


@pytest.mark.parametrize(
    ("name", "optimiser", "betas"),
    [
        ("darts", torch.optim.Adam, (0.5, 0.999)),
        ("joint", torch.optim.Adam, (0.5, 0.999)),
        ("gdas", torch.optim.Adam, (0.5, 0.999)),
        ("cycles", torch.optim.Adam, (0.9, 0.999)),
        ("gaea", ExponentiatedGradient, None),
    ],
)
def test_alpha_has_the_optimiser_of_the_paper(
    name: str, optimiser: type[torch.optim.Optimizer], betas: tuple[float, float] | None
) -> None:
    found = initial_state_of(CASES[name]).alpha_optimiser
    assert type(found) is optimiser
    assert found.param_groups[0].get("betas") == betas


@ALL
def test_a_frozen_weight_does_not_change(strategy: Strategy) -> None:
    state = initial_state_of(strategy)
    state.supernet.conv1.requires_grad_(False)
    before = state.supernet.conv1.weight.clone()
    run(strategy, state, 2)
    assert same_bits(state.supernet.conv1.weight, before)
    assert state.supernet.conv1.weight.grad is None


@ALL
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_divergence_before_anything_moves(strategy: Strategy, bad: float) -> None:
    state = initial_state_of(strategy)
    run(strategy, state, 1)
    before = tensor_copies(state.supernet)
    train, val = batches()
    state.loss = lambda out, y: F.cross_entropy(out, y) * bad
    with pytest.raises(Divergence, match=r"step 2: the (training|validation) loss is (nan|inf)"):
        strategy.step(state, train, val)
    parameters = {name for name, _ in state.supernet.named_parameters()}
    assert all(same_bits(t, before[name]) for name, t in tensor_copies(state.supernet).items() if name in parameters)


def test_divergence_names_the_loss() -> None:
    strategy = DARTS()
    state = initial_state_of(strategy)
    train, val = batches()
    with pytest.raises(Divergence, match="step 1: the validation loss is nan"):
        strategy.step(state, train, Batch(val.x * math.nan, val.y))
    with pytest.raises(Divergence, match="step 1: the training loss is nan"):
        strategy.step(state, Batch(train.x * math.nan, train.y), val)


def test_a_gradient_of_alpha_that_is_not_finite_raises_divergence_with_its_site() -> None:
    class InfiniteSlope(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.inf

    state = initial_state_of(DARTS(order=1))
    state.supernet.act2.functions = (torch.tanh, torch.sigmoid, lambda x: InfiniteSlope.apply(x))
    with pytest.raises(Divergence, match="step 1: site 'act1': the gradient of alpha is not finite"):
        DARTS(order=1).step(state, *batches())


def test_order_2_agrees_with_one_step_unrolled_for_both_mixed_products() -> None:
    steps = {}
    for name, strategy in {"exact": DARTS(), "difference": DARTS(mixed="finite_difference"), "u": Unrolled()}.items():
        state = initial_state_of(strategy, dtype=torch.float64)
        torch.manual_seed(3)
        steps[name] = flat(strategy.alpha_gradient(state, *batches(torch.float64)).alpha)
    torch.testing.assert_close(steps["exact"], steps["u"], rtol=1e-12, atol=0)
    torch.testing.assert_close(steps["difference"], steps["u"], rtol=1e-4, atol=1e-7)


def test_the_weight_step_uses_the_new_alpha() -> None:
    """As in Alg. 1 of the paper: first alpha, then w at the new alpha."""
    strategy = DARTS(order=1, lr=0.5)
    state = initial_state_of(strategy)
    train, val = batches()
    torch.manual_seed(0)
    twin = copy.deepcopy(state.supernet)
    report = strategy.step(state, train, val)
    torch.manual_seed(0)
    torch.randint(2**62, ()), torch.randint(2**62, ())
    with torch.no_grad():
        for twin_alpha, alpha in zip(twin.arch_parameters(), state.supernet.arch_parameters(), strict=True):
            twin_alpha.copy_(alpha)
    assert F.cross_entropy(twin(train.x), train.y).item() == report.train_loss


@pytest.mark.parametrize("mixed", ["exact", "finite_difference"])
def test_a_simultaneous_update_moves_alpha_as_alternating_and_w_as_with_frozen_alpha(mixed: str) -> None:
    """The batch statistics are those of one pass over the training batch."""
    ends = {}
    for update in ("alternating", "simultaneous", "only w"):
        supernet = tiny_supernet(dropout=0.0, dtype=torch.float64)
        only_w = update == "only w"
        strategy = DARTS(lr=0.1, mixed=mixed, update="alternating" if only_w else update)
        state = strategy.init(supernet, OPTIMISERS["sgd_momentum"](supernet.weight_parameters()), F.cross_entropy)
        train, val = batches(torch.float64)
        report = weight_step(state, train) if only_w else strategy.step(state, train, val)
        ends[update] = tensor_copies(supernet), report.train_loss
    (alternating, _), (simultaneous, loss), (only_w_moved, expected_loss) = ends.values()
    alphas = {name for name in simultaneous if "alpha" in name}
    assert len(alphas) == 2
    assert all(same_bits(simultaneous[name], alternating[name]) for name in alphas)
    assert any(name.endswith("running_mean") for name in simultaneous.keys() - alphas)
    for name in simultaneous.keys() - alphas:
        torch.testing.assert_close(simultaneous[name], only_w_moved[name], rtol=1e-9, atol=1e-12)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert not torch.allclose(alternating["conv1.weight"], only_w_moved["conv1.weight"], rtol=1e-9, atol=1e-12)


@ALL
def test_supernet_without_alpha_is_refused(strategy: Strategy) -> None:
    supernet = tiny_supernet()
    supernet.mixtures = dict
    supernet.arch_parameters = list
    with pytest.raises(SurgeryError, match="no architecture parameters"):
        strategy.init(supernet, torch.optim.SGD(supernet.parameters(), lr=0.1), F.cross_entropy)


@ALL
def test_alpha_in_the_weight_optimiser_is_refused_by_site(strategy: Strategy) -> None:
    supernet = tiny_supernet(normaliser=normaliser_for(strategy))
    with pytest.raises(StudyError, match="site 'act1': its alpha is in the weight optimiser"):
        strategy.init(supernet, torch.optim.SGD(supernet.parameters(), lr=0.1), F.cross_entropy)


@ALL
def test_a_normaliser_that_a_strategy_does_not_support_is_refused_by_site(strategy: Strategy) -> None:
    for normaliser in NORMALISERS.names():
        supernet = tiny_supernet(normaliser=normaliser)
        optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1)
        if not strategy.normalisers or normaliser in strategy.normalisers:
            strategy.init(supernet, optimiser, F.cross_entropy)
            continue
        with pytest.raises(StudyError) as caught:
            strategy.init(supernet, optimiser, F.cross_entropy)
        message = f"site 'act1': strategy {registered_name(strategy)!r} does not support normaliser {normaliser!r}: "
        assert str(caught.value).startswith(message)
        assert str(caught.value).endswith("use " + " or ".join(strategy.normalisers))


@ALL
def test_weight_optimiser_of_another_network_is_refused(strategy: Strategy) -> None:
    other = torch.optim.SGD(tiny_supernet(seed=1).weight_parameters(), lr=0.1)
    with pytest.raises(StudyError, match="holds no weight of the supernet"):
        strategy.init(tiny_supernet(normaliser=normaliser_for(strategy)), other, F.cross_entropy)


LOOKS_AHEAD = {"darts", "darts_finite_difference", "darts_simultaneous", "unrolled", "unrolled_3", "shrink_order_2"}
USES_NO_INNER_STEP = {"joint", "darts_order_1", "gdas", "implicit", "cycles", "shrink", "random"}


def test_an_optimiser_without_inner_step_is_refused_only_by_strategies_that_look_ahead() -> None:
    refused: set[tuple[str, str]] = set()
    for name, strategy in CASES.items():
        supernet: TinySupernet = tiny_supernet(normaliser=normaliser_for(strategy))
        optimiser = torch.optim.RMSprop(supernet.weight_parameters(), lr=1e-3)
        try:
            run(strategy, strategy.init(supernet, optimiser, F.cross_entropy), 1)
        except StudyError as error:
            refused.add((name, str(error).split(":")[0]))
    assert {message for _, message in refused} == {"the inner step of RMSprop is not known"}
    assert {name for name, _ in refused} >= LOOKS_AHEAD
    assert not {name for name, _ in refused} & USES_NO_INNER_STEP


def test_a_saved_state_that_does_not_fit_is_refused_in_one_line() -> None:
    state = initial_state_of(Joint())
    good = state.state_dict()
    broken = {**good, "supernet": {k: v for k, v in good["supernet"].items() if k != "conv1.weight"}}
    for saved, message in ((broken, "conv1.weight"), ({"step": 1}, "a search state holds")):
        with pytest.raises(StoreError, match=message) as caught:
            state.load_state_dict(saved)
        assert "\n" not in str(caught.value)
