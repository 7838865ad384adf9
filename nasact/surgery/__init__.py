"""Finds the activation sites of any torch model and replaces what they apply; everything else stays the user's code.

Knows torch and the catalogue of functions; must not know mixtures, searches or training.
"""

from nasact.surgery.site_records import Site, SiteReport, Unreachable
from nasact.surgery.sites import find_sites

__all__ = ["Site", "SiteReport", "Unreachable", "find_sites"]
