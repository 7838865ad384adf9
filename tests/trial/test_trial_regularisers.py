"""A trial with regularisers: it decides where one asks it to, and continues to the bit."""

from __future__ import annotations

from pathlib import Path

from nasact.trial import run_trial

MANY = [{"name": "entropy", "start": 0.0}, {"name": "sdarts", "attack": "pgd", "steps": 2}, "spectral", "l2"]


def test_entropy_makes_the_mixtures_of_a_trial_decide(make_spec, load, driver) -> None:
    ends = []
    for given in ([], [{"name": "entropy", "coefficient": 5.0, "start": 0.0}]):
        constant = {"start": 1.0, "end": None, "schedule": "constant"}
        strategy = {"name": "darts", "order": 1, "lr": 0.1}
        search = {"regularisers": given, "temperature": constant, "strategy": strategy}
        spec = make_spec(search=search, retrain={"epochs": 1})
        _, result = driver(run_trial(spec, load(spec)))
        ends.append(result.metrics["entropy"])
    assert ends[1] < 0.9 * ends[0]


def test_a_regularised_trial_that_was_interrupted_ends_as_one_that_was_not(
    make_spec, load, driver, facts, tmp_path: Path
) -> None:
    spec = make_spec(search={"regularisers": MANY})
    data = load(spec)
    run = run_trial(spec, data, directory=tmp_path)
    next(run), next(run)
    run.close()
    _, continued = driver(run_trial(spec, data, directory=tmp_path))
    _, whole = driver(run_trial(spec, data))
    assert facts(continued) == facts(whole)
