"""Bank hygiene before a search: what sites see, how well conditioned their banks are, who is there twice.

Knows supernets and the catalogue's records; nothing of studies, tasks or how a search is run.
"""

from nasact.redundancy.inputs import SiteInputs, outputs, site_inputs
from nasact.redundancy.inspection import (
    TOLERANCE,
    WIDEN,
    SiteBank,
    inspect_banks,
    inspect_site,
    keeping_order,
    spread_examples,
)
from nasact.redundancy.linear_dependence import EXACT, Columns, Redundant, condition, condition_centred, rank
from nasact.redundancy.principles import Principle, principles
from nasact.redundancy.reduction import DROPS, EXAMPLES, LEAST, Reduction, reduced, tidied
from nasact.redundancy.report import hygiene_report

__all__ = [
    "DROPS",
    "EXACT",
    "EXAMPLES",
    "LEAST",
    "TOLERANCE",
    "WIDEN",
    "Columns",
    "Principle",
    "Reduction",
    "Redundant",
    "SiteBank",
    "SiteInputs",
    "condition",
    "condition_centred",
    "hygiene_report",
    "inspect_banks",
    "inspect_site",
    "keeping_order",
    "outputs",
    "principles",
    "rank",
    "reduced",
    "site_inputs",
    "spread_examples",
    "tidied",
]
