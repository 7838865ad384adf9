"""The report room: statistics, tables, plots, progress and the final document, all from plain mappings.

Knows no torch, Optuna or MLflow; `import nasact.report` stays light, so that `nasact show` answers at once.
"""
