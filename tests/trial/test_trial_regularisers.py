"""A trial with regularisers: the entropy penalty lowers the entropy, and a continued trial is equal to the bit."""

from __future__ import annotations

from pathlib import Path

from nasact.trial import run_trial

MANY = [{"name": "entropy", "start": 0.0}, {"name": "sdarts", "attack": "pgd", "steps": 2}, "spectral", "l2"]


def test_the_entropy_penalty_lowers_the_entropy_of_the_mixtures(make_spec, load, driver) -> None:
    entropies = []
    for regularisers in ([], [{"name": "entropy", "coefficient": 5.0, "start": 0.0}]):
        constant = {"start": 1.0, "end": None, "schedule": "constant"}
        strategy = {"name": "darts", "order": 1, "lr": 0.1}
        search = {"regularisers": regularisers, "temperature": constant, "strategy": strategy}
        spec = make_spec(search=search, retrain={"epochs": 1})
        _, result = driver(run_trial(spec, load(spec)))
        entropies.append(result.metrics["entropy"])
    assert entropies[1] < 0.9 * entropies[0]


def test_an_interrupted_regularised_trial_ends_as_an_uninterrupted_one(
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
