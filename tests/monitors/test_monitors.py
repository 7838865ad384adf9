"""`weights` and `discretisation` against their definitions; what all monitors promise; a suite, record by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from monitored import BANK, Epoch, context, examples, history, supernet

from nasact.bilevel import build as build_strategy
from nasact.errors import StudyError, UnknownName
from nasact.mixture import NORMALISERS
from nasact.monitors import MONITORS, Discretisation, Hessian, MonitorSuite, Weights, better, build, require_site
from nasact.supernet import derive
from nasact.training.loop import SearchRun, begin_search
from nasact.training.optimisers import OPTIMISERS


def test_these_are_the_monitors() -> None:
    assert MONITORS.names() == ("weights", "hessian", "discretisation")
    assert all(MONITORS.get(name).name == name for name in MONITORS.names())
    with pytest.raises(UnknownName, match=r"unknown monitor 'wieghts'. Did you mean 'weights'\? \(nasact list monit"):
        build("wieghts", {})


@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("name", MONITORS.names())
def test_every_monitor_gives_what_it_says_and_leaves_no_trace(name: str, level: str) -> None:
    net = supernet(level=level, example_input=torch.zeros(2, 4, dtype=torch.float64))
    monitor, before = MONITORS.get(name)(), copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    monitor.precheck(context(net))
    found = monitor.measure(context(net))
    assert found == monitor.measure(context(net))
    stems = {metric if metric in monitor.metrics else f"{metric.partition('.')[0]}.*" for metric in found}
    assert stems == set(monitor.metrics)
    assert all(math.isfinite(value) for value in found.values())
    assert torch.equal(torch.get_rng_state(), random)
    assert net.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_weights_are_entropies_largest_shares_and_the_share_of_identity() -> None:
    net = supernet("free", "channel")
    first, second = net.mixtures().values()
    with torch.no_grad():
        first.alpha.copy_(torch.tensor([[1.0, 0, 0, 0]]).expand(6, 4))
        first.alpha[:3] = torch.tensor([0.5, 0, -0.5, 0])  # relu, tanh, identity, silu
        second.alpha.fill_(2.0)
    found = Weights().measure(context(net))
    one, two = net.mixtures()
    assert BANK.index("identity") == 2
    assert found == pytest.approx(
        {
            f"entropy.{one}": math.log(2) / 2,
            f"entropy.{two}": math.log(4),
            f"max_weight.{one}": 0.75,
            f"max_weight.{two}": 0.25,
            "max_weight": 0.5,
            "identity_mass": (0.25 + 0.25) / 2,
        }
    )


def test_identity_above_its_share_is_a_collapse_where_a_share_is_given() -> None:
    record = history("identity_mass", [0.2, 0.5, 0.51])
    assert Weights().detect_collapse(record) is None
    assert Weights().earliest_collapse(2) is None
    strict = Weights(most_identity=0.5)
    assert [strict.detect_collapse(record[:end]) is None for end in range(4)] == [True, True, True, False]
    found = strict.detect_collapse(record)
    assert found is not None
    assert (found.epoch, found.last_healthy_epoch, strict.earliest_collapse(2)) == (3, 2, 3)
    assert found.reason == "identity holds 0.51 of the mixture weights, more than 0.5"
    with pytest.raises(StudyError, match=r"most_identity must be above 0 and at most 1, but got 1\.5"):
        Weights(most_identity=1.5)


@pytest.mark.parametrize("level", ["layer", "channel"])
@pytest.mark.parametrize("top_k", [1, 2, "all"])
def test_the_discretisation_gap_is_that_of_the_derived_functions_with_the_weights_as_they_are(
    top_k: Any, level: str
) -> None:
    net = supernet(level=level)
    data = examples(200)
    found = Discretisation().measure(context(net, val=data, top_k=top_k, metrics={"val_accuracy": 0.75}))
    # the genotype as alphas: the kept weights in their places, through a normaliser that changes nothing
    pruned, genotype = copy.deepcopy(net).eval(), derive(net, top_k)
    for site, mixture in pruned.mixtures().items():
        mixture.normaliser_name = "free"
        gene = genotype.sites[site]
        columns = [mixture.names.index(name) for name in gene.functions]
        with torch.no_grad():
            mixture.alpha.zero_()
            mixture.alpha[..., columns] = torch.tensor(gene.weights).to(mixture.alpha)
    accuracy = float((pruned(data.x).argmax(-1) == data.y).double().mean())
    assert found == pytest.approx({"pruned_val_accuracy": accuracy, "discretisation_gap": 0.75 - accuracy})


def test_weights_that_cannot_be_pruned_leave_the_epoch_without_a_gap() -> None:
    net = supernet("affine")
    with torch.no_grad():
        for alpha in net.arch_parameters():
            alpha.copy_(torch.tensor([1.0, -1.0, 0.5, 0.5]))
    assert Discretisation().measure(context(net, top_k=2)) == {}
    assert Discretisation().measure(context(net, top_k=9)) == {}
    assert Discretisation().measure(context(net, top_k=1)) != {}


def test_where_a_metric_is_better_is_known_by_its_name_or_its_site() -> None:
    assert better("val_accuracy", ()) == "high"
    assert better("identity_mass", ()) is None
    assert better("identity_mass", (Weights(),)) == "low"
    assert better("entropy.act1", (Weights(),)) == "low"
    assert better("max_weight.body.2", (Weights(),)) == "high"
    assert better("entropy.", (Weights(),)) is None
    assert better("entropy.*", ()) is None
    assert better("hessian_eigenvalue", (Weights(), Hessian())) == "low"
    require_site("entropy.act1", ("act1", "act2"))
    require_site("identity_mass", ("act1",))
    with pytest.raises(StudyError, match=r"outer.prune_by: 'entropy.act3' is of no site .* Did you mean 'entropy.act"):
        require_site("entropy.act3", ("act1", "act2"))


# a suite over a search of which the test says how it went


class Adam:
    name, lr, weight_decay, momentum = "adam", 0.01, 0.0, 0.9


def run() -> SearchRun:
    assert Adam.name in OPTIMISERS.names()
    return begin_search(supernet(), build_strategy("darts", {"order": 1}), Adam(), seed=5)


def lived(suite: MonitorSuite, search: SearchRun, accuracies: list[float], masses: list[float]) -> list[Epoch]:
    """Epochs of these accuracies; alpha's first entries tell the epoch, and identity is given its mass."""
    record = []
    for number, (accuracy, mass) in enumerate(zip(accuracies, masses, strict=True), 1):
        with torch.no_grad():
            for alpha in search.supernet.arch_parameters():
                alpha[..., 0] = number
        for rows in search.weights_over_time.values():
            rows.append([float(number)] * 4)
        epoch = suite.measure(search, examples(), Epoch(number, {"val_accuracy": accuracy, "seconds": 0.0}))
        record.append(Epoch(number, {**epoch.metrics, "identity_mass": mass}))
    return record


def suite_with(**options: Any) -> MonitorSuite:
    return MonitorSuite(monitors=(Weights(most_identity=0.5),), **options)


ACCURACIES, MASSES = [0.9, 0.5, 0.7, 0.7, 0.6, 0.8, 0.9], [0.9, 0.1, 0.1, 0.1, 0.1, 0.6, 0.9]


def test_rolling_back_takes_the_best_epoch_before_the_collapse_and_none_of_the_warm_up() -> None:
    suite, search = suite_with(on_collapse="roll_back", warmup=1), run()
    collapse = suite.first_collapse(lived(suite, search, ACCURACIES, MASSES))
    assert collapse is not None
    assert (collapse.epoch, collapse.last_healthy_epoch) == (6, 5)
    assert suite.ends_search(collapse)
    record = suite.collapse_record(collapse)
    assert record is not None
    assert (record["action"], record["rolled_back_to"]) == ("rolled back", 3)
    weights = [parameter.detach().clone() for parameter in search.supernet.weight_parameters()]
    assert suite.roll_back(search, collapse)
    assert {float(alpha.detach()[..., 0]) for alpha in search.supernet.arch_parameters()} == {3.0}
    assert {rows[-1][0] for rows in search.weights_over_time.values()} == {3.0}
    assert all(map(torch.equal, weights, search.supernet.weight_parameters()))


def test_a_continued_monitor_suite_rolls_back_to_the_same_epoch() -> None:
    whole, search = suite_with(on_collapse="roll_back"), run()
    record = lived(whole, search, ACCURACIES[1:], MASSES[1:])
    again, other = suite_with(on_collapse="roll_back"), run()
    again.best_epochs = torch.load(_saved(whole.best_epochs), weights_only=True)
    other.weights_over_time = copy.deepcopy(search.weights_over_time)
    assert again.collapse_record(again.first_collapse(record)) == whole.collapse_record(whole.first_collapse(record))
    whole.roll_back(search, whole.first_collapse(record))
    again.roll_back(other, again.first_collapse(record))
    assert search.supernet.weights().keys() == other.supernet.weights().keys()
    for site, weights in search.supernet.weights().items():
        assert torch.equal(weights, other.supernet.weights()[site])


def _saved(payload: Any) -> Any:
    import io

    buffer = io.BytesIO()
    torch.save(payload, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize(("on_collapse", "action"), [("report", "reported"), ("stop", "stopped")])
def test_without_rolling_back_nothing_is_kept_and_nothing_moves(on_collapse: Any, action: str) -> None:
    suite, search = suite_with(on_collapse=on_collapse), run()
    collapse = suite.first_collapse(lived(suite, search, ACCURACIES[1:], MASSES[1:]))
    record = suite.collapse_record(collapse)
    assert record is not None
    assert (record["action"], record["rolled_back_to"], suite.best_epochs) == (action, None, [])
    assert suite.ends_search(collapse) == (on_collapse == "stop")
    assert not suite.roll_back(search, collapse)
    assert {float(alpha.detach()[..., 0]) for alpha in search.supernet.arch_parameters()} == {6.0}


def test_a_search_that_collapses_at_once_has_nothing_to_go_back_to() -> None:
    suite, search = suite_with(on_collapse="roll_back", warmup=1), run()
    collapse = suite.first_collapse(lived(suite, search, [0.9, 0.5], [0.9, 0.9]))
    record = suite.collapse_record(collapse)
    assert record is not None
    assert (record["epoch"], record["action"], record["rolled_back_to"]) == (2, "stopped", None)
    assert not suite.roll_back(search, collapse)


def test_what_a_model_draws_in_evaluation_does_not_shift_the_search() -> None:
    assert "gumbel" in NORMALISERS

    class Drawing(Weights):
        def measure(self, context: Any) -> dict[str, float]:
            return {"drawn": float(torch.rand(()))}

    search, suite = run(), MonitorSuite(monitors=(Drawing(),))
    stream, outside = search.stream.state_dict()["torch"].clone(), torch.get_rng_state()
    epoch = Epoch(1, {"val_accuracy": 0.5, "seconds": 0.0})
    assert suite.measure(search, examples(), epoch).metrics == {
        **suite.measure(search, examples(), epoch).metrics,
        "seconds": pytest.approx(0.0, abs=1.0),
    }
    assert torch.equal(search.stream.state_dict()["torch"], stream)
    assert torch.equal(torch.get_rng_state(), outside)
