"""What every strategy must do, whatever it is called: to register one is to be tested here."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from bilevel_problems import OPTIMISERS, TinySupernet, batches, flat, normaliser_for, numbers, tiny_supernet
from torch.nn import functional as F

from nasact.bilevel import (
    DARTS,
    GAEA,
    STRATEGIES,
    Batch,
    Cycles,
    ExponentiatedGradient,
    Implicit,
    Joint,
    Random,
    SearchState,
    Shrink,
    StepReport,
    Strategy,
    Unrolled,
    alpha_moves_from,
    build,
)
from nasact.bilevel.snapshot import same_bits
from nasact.bilevel.strategies.alternating import weight_step
from nasact.errors import Divergence, StoreError, StudyError, SurgeryError

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
    assert len(STRATEGIES) == 11
    assert {type(strategy) for strategy in CASES.values()} == set(STRATEGIES.values())


def start(strategy: Strategy, *, optimiser: str = "sgd_momentum", seed: int = 0, dtype=torch.float32) -> SearchState:
    """A search where the strategy says that alpha moves: at its start, for most."""
    supernet = tiny_supernet(seed=seed, dtype=dtype, normaliser=normaliser_for(strategy))
    state = strategy.init(supernet, OPTIMISERS[optimiser](supernet.weight_parameters()), F.cross_entropy)
    state.progress = alpha_moves_from(strategy) or 0.0
    return state


def run(strategy: Strategy, state: SearchState, steps: int) -> list[StepReport]:
    return [strategy.step(state, *batches(seed=100 + state.step)) for _ in range(steps)]


def everything(state: SearchState) -> torch.Tensor:
    memories = [
        value
        for optimiser in (state.weight_optimiser, state.alpha_optimiser)
        for memory in optimiser.state.values()
        for value in memory.values()
    ]
    return torch.cat([flat(numbers(state.supernet).values()), flat(memories)])


@ALL
def test_alpha_and_w_move_and_the_report_holds_the_losses(strategy: Strategy) -> None:
    """In one step; in two where alpha rests at first, for then the two need not move in the same."""
    state = start(strategy)
    before, moves_from = numbers(state.supernet), alpha_moves_from(strategy)
    for state.progress in (0.0, moves_from) if moves_from else (0.0,):
        (report,) = run(strategy, state, 1)
    after = numbers(state.supernet)
    still = {name for name in before if same_bits(before[name], after[name])}
    resting = {"act1.alpha", "act2.alpha"} if moves_from is None else set()
    assert still == {"unused"} | resting, "what gets no gradient stays, weight decay or not; all else moves"
    assert state.supernet.unused.grad is None
    assert state.step == (2 if moves_from else 1)
    assert math.isfinite(report.train_loss)
    looks_at_validation = not (isinstance(strategy, Joint | Random) or strategy == Cycles(loss="train"))
    assert (report.val_loss is not None) == looks_at_validation
    assert report.val_loss is None or math.isfinite(report.val_loss)


RESTING = {name: strategy for name, strategy in CASES.items() if alpha_moves_from(strategy) != 0.0}


def test_these_let_alpha_rest_at_first_or_for_good() -> None:
    assert set(RESTING) == {"cycles", "cycles_val", "shrink", "shrink_order_2", "random"}


@pytest.mark.parametrize("strategy", RESTING.values(), ids=RESTING)
def test_alpha_rests_to_the_bit_until_the_strategy_says_that_it_moves(strategy: Strategy) -> None:
    state, moves_from = start(strategy), alpha_moves_from(strategy)
    before = numbers(state.supernet)
    for part in (0.0, 0.5, 0.999):
        state.progress = part * (1.0 if moves_from is None else moves_from)
        (report,) = run(strategy, state, 1)
        assert report.val_loss is None
    after = numbers(state.supernet)
    assert all(same_bits(before[name], after[name]) for name in ("act1.alpha", "act2.alpha"))
    assert not same_bits(before["conv1.weight"], after["conv1.weight"])


@ALL
def test_same_seeds_give_the_same_bits(strategy: Strategy) -> None:
    ends = []
    for _ in range(2):
        state = start(strategy)
        torch.manual_seed(11)
        reports = run(strategy, state, 3)
        ends.append((reports, everything(state), torch.get_rng_state()))
    assert ends[0][0] == ends[1][0]
    assert same_bits(ends[0][1], ends[1][1])
    assert torch.equal(ends[0][2], ends[1][2])


@ALL
@pytest.mark.parametrize("optimiser", ["sgd_momentum", "adamw"])
def test_state_saved_and_loaded_continues_to_the_bit(strategy: Strategy, optimiser: str) -> None:
    state = start(strategy, optimiser=optimiser)
    run(strategy, state, 2)
    saved, random = state.state_dict(), torch.get_rng_state()
    kept = copy.deepcopy(saved)
    reports = run(strategy, state, 2)

    other = start(strategy, optimiser=optimiser, seed=1)
    other.load_state_dict(saved)
    torch.set_rng_state(random)
    assert other.step == 2
    assert run(strategy, other, 2) == reports
    assert same_bits(everything(other), everything(state))
    # Neither search wrote into the dictionary.
    torch.testing.assert_close(saved, kept, rtol=0, atol=0)


@ALL
def test_alpha_gradient_changes_nothing_but_the_generators_position(strategy: Strategy) -> None:
    state = start(strategy)
    run(strategy, state, 1)
    before, memory = numbers(state.supernet), everything(state)
    grads = [None if p.grad is None else p.grad.clone() for p in state.supernet.parameters()]
    found = strategy.alpha_gradient(state, *batches())
    assert len(found.alpha) == 2
    assert all(same_bits(tensor, before[name]) for name, tensor in numbers(state.supernet).items())
    assert same_bits(everything(state), memory)
    for parameter, grad in zip(state.supernet.parameters(), grads, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or same_bits(parameter.grad, grad)
    assert state.step == 1


@ALL
def test_batchnorm_sees_one_batch_a_step_in_train_mode_even_after_an_evaluation(strategy: Strategy) -> None:
    state = start(strategy)
    state.supernet.eval()
    run(strategy, state, 3)
    assert state.supernet.training
    assert int(state.supernet.bn1.num_batches_tracked) == 3


@ALL
def test_batchnorm_frozen_in_eval_mode_by_the_user_stays_frozen(strategy: Strategy) -> None:
    state = start(strategy)
    state.supernet.bn1.eval()
    run(strategy, state, 2)
    assert int(state.supernet.bn1.num_batches_tracked) == 0
    assert int(state.supernet.bn2.num_batches_tracked) == 2


@ALL
def test_alpha_is_projected_after_every_step(strategy: Strategy) -> None:
    state = start(strategy)
    run(strategy, state, 3)
    assert state.supernet.projections == 3


@ALL
def test_alpha_has_an_optimiser_of_its_own_without_weight_decay(strategy: Strategy) -> None:
    state = start(strategy)
    (group,) = state.alpha_optimiser.param_groups
    if isinstance(strategy, GAEA):
        assert isinstance(state.alpha_optimiser, ExponentiatedGradient)
        assert group["lr"] == strategy.lr
    else:
        assert isinstance(state.alpha_optimiser, torch.optim.Adam)
        betas = (0.9, 0.999) if isinstance(strategy, Cycles) else (0.5, 0.999)
        assert (group["lr"], group["betas"], group["weight_decay"]) == (strategy.lr, betas, 0)
    assert [id(p) for p in group["params"]] == [id(p) for p in state.supernet.arch_parameters()]


@ALL
def test_frozen_weight_stays(strategy: Strategy) -> None:
    state = start(strategy)
    state.supernet.conv1.requires_grad_(False)
    before = state.supernet.conv1.weight.clone()
    run(strategy, state, 2)
    assert same_bits(state.supernet.conv1.weight, before)
    assert state.supernet.conv1.weight.grad is None


@ALL
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_that_is_no_number_ends_the_search_before_anything_moves(strategy: Strategy, bad: float) -> None:
    state = start(strategy)
    run(strategy, state, 1)
    before = numbers(state.supernet)
    train, val = batches()
    state.loss = lambda out, y: F.cross_entropy(out, y) * bad
    with pytest.raises(Divergence, match=r"step 2: the (training|validation) loss is (nan|inf)"):
        strategy.step(state, train, val)
    parameters = {name for name, _ in state.supernet.named_parameters()}
    assert all(same_bits(t, before[name]) for name, t in numbers(state.supernet).items() if name in parameters)


def test_divergence_names_the_loss_that_diverged() -> None:
    strategy = DARTS()
    state = start(strategy)
    train, val = batches()
    with pytest.raises(Divergence, match="step 1: the validation loss is nan"):
        strategy.step(state, train, Batch(val.x * math.nan, val.y))
    with pytest.raises(Divergence, match="step 1: the training loss is nan"):
        strategy.step(state, Batch(train.x * math.nan, train.y), val)


def test_gradient_of_alpha_that_is_no_number_names_its_site() -> None:
    class InfiniteSlope(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.inf

    state = start(DARTS(order=1))
    state.supernet.act2.functions = (torch.tanh, torch.sigmoid, lambda x: InfiniteSlope.apply(x))
    with pytest.raises(Divergence, match="step 1: site 'act1': the gradient of alpha is not finite"):
        DARTS(order=1).step(state, *batches())


def test_order_2_one_step_unrolled_and_both_doors_to_the_mixed_product_agree() -> None:
    steps = {}
    for name, strategy in {"exact": DARTS(), "difference": DARTS(mixed="finite_difference"), "u": Unrolled()}.items():
        state = start(strategy, dtype=torch.float64)
        torch.manual_seed(3)
        steps[name] = flat(strategy.alpha_gradient(state, *batches(torch.float64)).alpha)
    torch.testing.assert_close(steps["exact"], steps["u"], rtol=1e-12, atol=0)
    torch.testing.assert_close(steps["difference"], steps["u"], rtol=1e-4, atol=1e-7)


def test_weight_step_uses_the_new_alpha() -> None:
    """As in Alg. 1 of the paper: alpha first, then w at the alpha just found."""
    strategy = DARTS(order=1, lr=0.5)
    state = start(strategy)
    train, val = batches()
    torch.manual_seed(0)
    twin = copy.deepcopy(state.supernet)
    report = strategy.step(state, train, val)
    torch.manual_seed(0)
    torch.randint(2**62, ()), torch.randint(2**62, ())
    with torch.no_grad():
        for mine, theirs in zip(twin.arch_parameters(), state.supernet.arch_parameters(), strict=True):
            mine.copy_(theirs)
    assert F.cross_entropy(twin(train.x), train.y).item() == report.train_loss


@pytest.mark.parametrize("mixed", ["exact", "finite_difference"])
def test_simultaneous_update_moves_alpha_as_alternating_does_and_w_as_if_alpha_rested(mixed: str) -> None:
    """... with the batch statistics of one pass over the training batch."""
    ends = {}
    for update in ("alternating", "simultaneous", "w alone"):
        supernet = tiny_supernet(dropout=0.0, dtype=torch.float64)
        alone = update == "w alone"
        strategy = DARTS(lr=0.1, mixed=mixed, update="alternating" if alone else update)
        state = strategy.init(supernet, OPTIMISERS["sgd_momentum"](supernet.weight_parameters()), F.cross_entropy)
        train, val = batches(torch.float64)
        report = weight_step(state, train) if alone else strategy.step(state, train, val)
        ends[update] = numbers(supernet), report.train_loss
    (alternating, _), (together, loss), (alone, its_loss) = ends.values()
    alphas = {name for name in together if "alpha" in name}
    assert len(alphas) == 2
    assert all(same_bits(together[name], alternating[name]) for name in alphas)
    assert any(name.endswith("running_mean") for name in together.keys() - alphas)
    for name in together.keys() - alphas:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-9, atol=1e-12)
    assert loss == pytest.approx(its_loss, rel=1e-12)
    assert not torch.allclose(alternating["conv1.weight"], alone["conv1.weight"], rtol=1e-9, atol=1e-12)


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
def test_normaliser_that_a_strategy_cannot_serve_is_refused_by_site(strategy: Strategy) -> None:
    """... and one that serves all takes even free weights."""
    supernet = tiny_supernet(normaliser="free")
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.1)
    if not strategy.normalisers:
        strategy.init(supernet, optimiser, F.cross_entropy)
        return
    with pytest.raises(StudyError, match=r"site 'act1': strategy '[a-z]+' cannot serve normaliser 'free': ") as caught:
        strategy.init(supernet, optimiser, F.cross_entropy)
    assert str(caught.value).endswith("use " + " or ".join(strategy.normalisers))


@ALL
def test_weight_optimiser_of_another_network_is_refused(strategy: Strategy) -> None:
    other = torch.optim.SGD(tiny_supernet(seed=1).weight_parameters(), lr=0.1)
    with pytest.raises(StudyError, match="holds no weight of the supernet"):
        strategy.init(tiny_supernet(normaliser=normaliser_for(strategy)), other, F.cross_entropy)


@ALL
def test_optimiser_that_cannot_be_looked_through_is_refused_only_where_that_is_needed(strategy: Strategy) -> None:
    supernet: TinySupernet = tiny_supernet(normaliser=normaliser_for(strategy))
    optimiser = torch.optim.RMSprop(supernet.weight_parameters(), lr=1e-3)
    if isinstance(strategy, Unrolled) or (isinstance(strategy, DARTS | Shrink) and strategy.order == 2):
        with pytest.raises(StudyError, match="RMSprop"):
            strategy.init(supernet, optimiser, F.cross_entropy)
    else:
        run(strategy, strategy.init(supernet, optimiser, F.cross_entropy), 1)


def test_saved_state_that_does_not_fit_is_told_in_one_line() -> None:
    state = start(Joint())
    good = state.state_dict()
    broken = {**good, "supernet": {k: v for k, v in good["supernet"].items() if k != "conv1.weight"}}
    for saved, message in ((broken, "conv1.weight"), ({"step": 1}, "a search state holds")):
        with pytest.raises(StoreError, match=message) as caught:
            state.load_state_dict(saved)
        assert "\n" not in str(caught.value)
