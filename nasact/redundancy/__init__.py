"""Redundant candidates before a search: the inputs of each site, the conditioning of its bank, linear dependence.

Knows supernets and the catalogue's records; must not know studies, tasks or how a search is run.
"""

from nasact.redundancy.inputs import SiteInputs, candidate_outputs, record_site_inputs
from nasact.redundancy.inspection import SiteBank, evenly_spaced_examples, inspect_banks, inspect_site, retention_order
from nasact.redundancy.linear_dependence import (
    EXACT_TOLERANCE,
    Columns,
    Dependence,
    centred_condition_number,
    condition_number,
    numerical_rank,
)
from nasact.redundancy.principles import Principle, check_principles
from nasact.redundancy.reduction import (
    DROPS,
    INSPECTED_EXAMPLES,
    MIN_CANDIDATES,
    Reduction,
    prune_redundant,
    reduce_candidates,
)
from nasact.redundancy.report import redundancy_report

__all__ = [
    "DROPS",
    "EXACT_TOLERANCE",
    "INSPECTED_EXAMPLES",
    "MIN_CANDIDATES",
    "Columns",
    "Dependence",
    "Principle",
    "Reduction",
    "SiteBank",
    "SiteInputs",
    "candidate_outputs",
    "centred_condition_number",
    "check_principles",
    "condition_number",
    "evenly_spaced_examples",
    "inspect_banks",
    "inspect_site",
    "numerical_rank",
    "prune_redundant",
    "record_site_inputs",
    "reduce_candidates",
    "redundancy_report",
    "retention_order",
]
