"""Candidates as tables: cells with a cubic each, the op on them and its adjoint, native code and plain torch for both.

`basis.py` says what a table is, `op.py` what is computed and its derivatives, `native.py` and `plain.py` compute it.
"""
