"""Reports: statistics, tables, plots, progress and the result document, all from plain mappings.

Knows no Optuna or MLflow, and torch in one file only. `import nasact.report` stays fast, and `nasact show` with it.
"""
