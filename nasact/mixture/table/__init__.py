"""Candidates as tables: each cell holds a cubic per function; the op on them and its adjoint, in native code or torch.

`basis.py` fits the tables and measures their errors. `op.py` defines the op and its derivatives, `compiled.py` the same
for torch.compile; `native.py` (built by `build.py`) and `plain.py` compute it.
"""
