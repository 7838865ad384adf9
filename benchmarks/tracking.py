"""What tracking a trial costs: 20 parameters, 1000 metric points, three figures and a genotype, into a local database.

Run it where nasact is installed: python benchmarks/tracking.py [--trials N]. The figures are rendered beforehand:
their rendering is not the tracker's cost, storing them is.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from nasact.tracking import MLflowTracker, StudyInfo


def measure(tracker: MLflowTracker, number: int) -> float:
    """Seconds that the tracker takes of one trial."""
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
    parser.add_argument("--trials", type=int, default=30)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tracker = MLflowTracker(f"sqlite:///{Path(folder)}/mlflow.db", directory=Path(folder) / "study")
        tracker.study_started(StudyInfo(name="benchmark", fingerprint="0"))
        opened = time.perf_counter() - start
        for number in range(3):
            measure(tracker, number)
        times = sorted(measure(tracker, number) for number in range(3, trials + 3))
        tracker.study_finished("complete")
        if tracker.waiting:
            raise SystemExit(f"{tracker.waiting} events were not stored: nothing was measured")
    quartiles = statistics.quantiles(times, n=4)
    print(f"start-up with a fresh database: {opened:.2f} s")
    print(
        f"a trial ({trials} measured): median {quartiles[1]:.3f} s, "
        f"quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f} s, fastest {times[0]:.3f} s, "
        f"slowest {times[-1]:.3f} s"
    )


if __name__ == "__main__":
    main()
