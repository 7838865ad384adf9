"""The engine `optuna`: trials one after another in this process, recorded in the study's SQLite file.

The only folder that imports optuna.
"""

from nasact.outer.optuna.engine import read_trials, run_trials

__all__ = ["read_trials", "run_trials"]
