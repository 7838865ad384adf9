"""Bank redundancy before a search: what sites see, how well conditioned their banks are, who is there twice.

Knows supernets and the catalogue's records; nothing of studies, tasks or how a search is run.
"""

from nasact.redundancy.inputs import SiteInputs, outputs, site_inputs
from nasact.redundancy.inspection import (
    INPUT_SCALE,
    TOLERANCE,
    SiteBank,
    inspect_banks,
    inspect_site,
    retention_order,
    spread_examples,
)
from nasact.redundancy.linear_dependence import EXACT, Columns, Redundant, condition, condition_centred, rank
from nasact.redundancy.principles import Principle, principles
from nasact.redundancy.reduction import DROPS, EXAMPLES, LEAST, Reduction, prune_redundant, reduced
from nasact.redundancy.report import redundancy_report

__all__ = [
    "DROPS",
    "EXACT",
    "EXAMPLES",
    "INPUT_SCALE",
    "LEAST",
    "TOLERANCE",
    "Columns",
    "Principle",
    "Reduction",
    "Redundant",
    "SiteBank",
    "SiteInputs",
    "condition",
    "condition_centred",
    "inspect_banks",
    "inspect_site",
    "outputs",
    "principles",
    "prune_redundant",
    "rank",
    "reduced",
    "redundancy_report",
    "retention_order",
    "site_inputs",
    "spread_examples",
]
