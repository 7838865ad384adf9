"""`weights` and `discretisation` against their definitions; properties of all monitors; the monitor suite."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from monitor_problems import BANK, Epoch, context, examples, history, supernet

from nasact import activations
from nasact.bilevel import build as build_strategy
from nasact.errors import StudyError, UnknownName
from nasact.mixture import NORMALISERS
from nasact.monitors import MONITORS, MonitorSuite, build, metric_direction, require_known_site
from nasact.monitors.discretisation import Discretisation
from nasact.monitors.hessian import Hessian
from nasact.monitors.weights import Weights, is_identity
from nasact.supernet import derive
from nasact.training.loop import SearchRun, begin_search
from nasact.training.optimisers import OPTIMISERS


def test_these_monitors_are_registered_under_their_names() -> None:
    assert {"weights", "hessian", "discretisation"} <= set(MONITORS.names())
    assert all(MONITORS.get(name).name == name for name in MONITORS.names())
    with pytest.raises(UnknownName, match=r"unknown monitor 'wieghts'. Did you mean 'weights'\? \(nasact list monit"):
        build("wieghts", {})


@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("name", MONITORS.names())
def test_every_monitor_measures_its_metrics_and_changes_nothing(name: str, level: str) -> None:
    net = supernet(level=level, example_input=torch.zeros(2, 4, dtype=torch.float64))
    monitor, before = MONITORS.get(name)(), copy.deepcopy(net.state_dict())
    random = torch.get_rng_state()
    monitor.precheck(context(net))
    metrics = monitor.measure(context(net))
    assert metrics == monitor.measure(context(net))
    stems = {metric if metric in monitor.metrics else f"{metric.partition('.')[0]}.*" for metric in metrics}
    assert stems == set(monitor.metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert torch.equal(torch.get_rng_state(), random)
    assert net.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_weights_measures_entropies_largest_weights_and_the_share_of_identity() -> None:
    net = supernet("free", "channel")
    first, second = net.mixtures().values()
    with torch.no_grad():
        first.alpha.copy_(torch.tensor([[1.0, 0, 0, 0]]).expand(6, 4))
        first.alpha[:3] = torch.tensor([0.5, 0, -0.5, 0])  # relu, tanh, identity, silu
        second.alpha.fill_(2.0)
    metrics = Weights().measure(context(net))
    one, two = net.mixtures()
    assert BANK.index("identity") == 2
    assert metrics == pytest.approx(
        {
            f"entropy.{one}": math.log(2) / 2,
            f"entropy.{two}": math.log(4),
            f"max_weight.{one}": 0.75,
            f"max_weight.{two}": 0.25,
            "max_weight": 0.5,
            "identity_mass": (0.25 + 0.25) / 2,
        }
    )


def test_the_identity_functions_are_those_that_return_their_input() -> None:
    x = torch.linspace(-3, 3, 13)
    functions = [candidate for candidate in activations.candidates() if candidate.elementwise]
    assert len(functions) >= 20
    returned = {candidate.name for candidate in functions if torch.equal(candidate(x), x)}
    assert {candidate.name for candidate in functions if is_identity(candidate.name)} == returned == {"identity"}
    assert not is_identity("original")


def test_a_share_of_identity_above_most_identity_is_a_collapse() -> None:
    epochs = history("identity_mass", [0.2, 0.5, 0.51])
    assert Weights().detect_collapse(epochs) is None
    assert Weights().earliest_collapse(2) is None
    strict = Weights(most_identity=0.5)
    assert [strict.detect_collapse(epochs[:end]) is None for end in range(4)] == [True, True, True, False]
    collapse = strict.detect_collapse(epochs)
    assert collapse is not None
    assert (collapse.epoch, collapse.last_healthy_epoch, strict.earliest_collapse(2)) == (3, 2, 3)
    assert collapse.reason == "identity holds 0.51 of the mixture weights, more than 0.5"
    with pytest.raises(StudyError, match=r"most_identity must be above 0 and at most 1, but got 1\.5"):
        Weights(most_identity=1.5)


@pytest.mark.parametrize("level", ["layer", "channel"])
@pytest.mark.parametrize("top_k", [1, 2, "all"])
def test_the_discretisation_gap_is_that_of_the_derived_functions_without_retraining(top_k: Any, level: str) -> None:
    net = supernet(level=level)
    data = examples(200)
    metrics = Discretisation().measure(context(net, val=data, top_k=top_k, metrics={"val_accuracy": 0.75}))
    # the genotype as alphas: the kept weights at their indices, with a normaliser that changes nothing
    pruned, genotype = copy.deepcopy(net).eval(), derive(net, top_k)
    for site, mixture in pruned.mixtures().items():
        mixture.normaliser_name = "free"
        gene = genotype.sites[site]
        columns = [mixture.names.index(name) for name in gene.functions]
        with torch.no_grad():
            mixture.alpha.zero_()
            mixture.alpha[..., columns] = torch.tensor(gene.weights).to(mixture.alpha)
    accuracy = float((pruned(data.x).argmax(-1) == data.y).double().mean())
    assert metrics == pytest.approx({"pruned_val_accuracy": accuracy, "discretisation_gap": 0.75 - accuracy})


def test_an_epoch_whose_weights_cannot_be_pruned_has_no_gap() -> None:
    net = supernet("affine")
    with torch.no_grad():
        for alpha in net.arch_parameters():
            alpha.copy_(torch.tensor([1.0, -1.0, 0.5, 0.5]))
    assert Discretisation().measure(context(net, top_k=2)) == {}
    assert Discretisation().measure(context(net, top_k=9)) == {}
    assert Discretisation().measure(context(net, top_k=1)) != {}


def test_the_direction_of_a_metric_follows_from_its_name_or_its_stem() -> None:
    assert metric_direction("val_accuracy", ()) == "high"
    assert metric_direction("identity_mass", ()) is None
    assert metric_direction("identity_mass", (Weights(),)) == "low"
    assert metric_direction("entropy.act1", (Weights(),)) == "low"
    assert metric_direction("max_weight.body.2", (Weights(),)) == "high"
    assert metric_direction("entropy.", (Weights(),)) is None
    assert metric_direction("entropy.*", ()) is None
    assert metric_direction("hessian_eigenvalue", (Weights(), Hessian())) == "low"
    require_known_site("entropy.act1", ("act1", "act2"))
    require_known_site("identity_mass", ("act1",))
    with pytest.raises(
        StudyError,
        match=r"outer.prune_by: 'entropy.act3' names a site that the model does not have. Did you mean 'entropy.act",
    ):
        require_known_site("entropy.act3", ("act1", "act2"))


# a suite over a search whose accuracies and shares of identity are set by the test


class Adam:
    name, lr, weight_decay, momentum = "adam", 0.01, 0.0, 0.9


def search_run() -> SearchRun:
    assert Adam.name in OPTIMISERS.names()
    return begin_search(supernet(), build_strategy("darts", {"order": 1}), Adam(), seed=5)


def run_epochs(suite: MonitorSuite, search: SearchRun, accuracies: list[float], masses: list[float]) -> list[Epoch]:
    """Epochs with these accuracies and identity masses; the first entry of each alpha is set to the epoch."""
    epochs = []
    for number, (accuracy, mass) in enumerate(zip(accuracies, masses, strict=True), 1):
        with torch.no_grad():
            for alpha in search.supernet.arch_parameters():
                alpha[..., 0] = number
        for rows in search.weights_over_time.values():
            rows.append([float(number)] * 4)
        epoch = suite.measure(search, examples(), Epoch(number, {"val_accuracy": accuracy, "seconds": 0.0}))
        epochs.append(Epoch(number, {**epoch.metrics, "identity_mass": mass}))
    return epochs


def suite_with(**options: Any) -> MonitorSuite:
    return MonitorSuite(monitors=(Weights(most_identity=0.5),), **options)


ACCURACIES, MASSES = [0.9, 0.5, 0.7, 0.7, 0.6, 0.8, 0.9], [0.9, 0.1, 0.1, 0.1, 0.1, 0.6, 0.9]


def test_roll_back_restores_the_best_epoch_between_warm_up_and_collapse() -> None:
    suite, search = suite_with(on_collapse="roll_back", warmup=1), search_run()
    collapse = suite.first_collapse(run_epochs(suite, search, ACCURACIES, MASSES))
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
    original, search = suite_with(on_collapse="roll_back"), search_run()
    epochs = run_epochs(original, search, ACCURACIES[1:], MASSES[1:])
    continued, other = suite_with(on_collapse="roll_back"), search_run()
    continued.best_epochs = torch.load(_saved(original.best_epochs), weights_only=True)
    other.weights_over_time = copy.deepcopy(search.weights_over_time)
    collapse = original.first_collapse(epochs)
    assert collapse is not None
    assert continued.first_collapse(epochs) == collapse
    assert continued.collapse_record(collapse) == original.collapse_record(collapse)
    assert original.roll_back(search, collapse)
    assert continued.roll_back(other, collapse)
    assert search.supernet.weights().keys() == other.supernet.weights().keys()
    for site, weights in search.supernet.weights().items():
        assert torch.equal(weights, other.supernet.weights()[site])


def _saved(payload: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize(("on_collapse", "action"), [("report", "reported"), ("stop", "stopped")])
def test_without_roll_back_no_epoch_is_kept_and_no_mixture_changes(on_collapse: Any, action: str) -> None:
    suite, search = suite_with(on_collapse=on_collapse), search_run()
    collapse = suite.first_collapse(run_epochs(suite, search, ACCURACIES[1:], MASSES[1:]))
    record = suite.collapse_record(collapse)
    assert record is not None
    assert (record["action"], record["rolled_back_to"], suite.best_epochs) == (action, None, [])
    assert suite.ends_search(collapse) == (on_collapse == "stop")
    assert not suite.roll_back(search, collapse)
    assert {float(alpha.detach()[..., 0]) for alpha in search.supernet.arch_parameters()} == {6.0}


def test_a_search_that_collapses_at_once_cannot_roll_back() -> None:
    suite, search = suite_with(on_collapse="roll_back", warmup=1), search_run()
    collapse = suite.first_collapse(run_epochs(suite, search, [0.9, 0.5], [0.9, 0.9]))
    record = suite.collapse_record(collapse)
    assert record is not None
    assert (record["epoch"], record["action"], record["rolled_back_to"]) == (2, "stopped", None)
    assert not suite.roll_back(search, collapse)


def test_random_numbers_drawn_by_a_monitor_do_not_shift_the_search() -> None:
    assert "gumbel" in NORMALISERS

    class Drawing(Weights):
        def measure(self, context: Any) -> dict[str, float]:
            return {"drawn": float(torch.rand(()))}

    search, suite = search_run(), MonitorSuite(monitors=(Drawing(),))
    stream_state, random_state = search.stream.state_dict()["torch"].clone(), torch.get_rng_state()
    epoch = Epoch(1, {"val_accuracy": 0.5, "seconds": 0.0})
    assert suite.measure(search, examples(), epoch).metrics == {
        **suite.measure(search, examples(), epoch).metrics,
        "seconds": pytest.approx(0.0, abs=1.0),
    }
    assert torch.equal(search.stream.state_dict()["torch"], stream_state)
    assert torch.equal(torch.get_rng_state(), random_state)
