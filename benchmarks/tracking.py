"""The cost of tracking a trial in a local database: 20 parameters, 1000 metric points, three figures and a genotype.

Usage: python benchmarks/tracking.py [--trials N]. The figures are rendered beforehand: the tracker only stores them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from nasact.tracking import MLflowTracker, StudyInfo


def measure(tracker: MLflowTracker, number: int) -> float:
    """Return the seconds that the tracker takes for one trial."""
    figures = dict.fromkeys(("weights", "shapes", "bars"), bytes(60_000))
    start = time.perf_counter()
    tracker.trial_started(number, f"key-{number}", {f"param.{index}": index * 0.1 for index in range(20)})
    for epoch in range(1, 51):
        metrics = {f"metric_{index}": epoch * 0.01 + index for index in range(20)}
        tracker.trial_report(number, {"phase": "search", "epoch": epoch, "metrics": metrics})
    tracker.trial_finished(number, "complete", {"accuracy": 0.9}, {"genotype.json": "{}"}, lambda: figures, None)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30, help="trials to measure (default: 30)")
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tracker = MLflowTracker(f"sqlite:///{Path(folder)}/mlflow.db", directory=Path(folder) / "study")
        tracker.study_started(StudyInfo(name="benchmark", fingerprint="0"))
        start_up = time.perf_counter() - start
        for number in range(3):
            measure(tracker, number)
        times = sorted(measure(tracker, number) for number in range(3, trials + 3))
        tracker.study_finished("complete")
        if tracker.pending_count:
            raise SystemExit(f"{tracker.pending_count} events were not stored: the times mean nothing")
    quartiles = statistics.quantiles(times, n=4)
    print(f"start-up with a fresh database: {start_up:.2f} s")
    print(
        f"a trial ({trials} measured): median {quartiles[1]:.3f} s, "
        f"quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f} s, fastest {times[0]:.3f} s, "
        f"slowest {times[-1]:.3f} s"
    )


if __name__ == "__main__":
    main()
