"""Names that nasact reserves where a function's name is expected.

A bottom module without imports, so that code without torch (study, report) can use it too.
"""

from __future__ import annotations

from typing import Final, Literal

ORIGINAL: Final[Literal["original"]] = "original"
"""The function that the model itself has at a site, whatever that function is."""
