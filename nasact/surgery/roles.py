"""What the result of a site is for: an activation, or a gate, an output, a function of parameters."""

from __future__ import annotations

from nasact.reserved_names import ORIGINAL
from nasact.surgery.reading.values import FoundSite
from nasact.surgery.site_records import Role

SIGMOIDS = frozenset({"sigmoid", "hard_sigmoid"})
"""Functions with values between 0 and 1, whose results often are factors or probabilities."""
POSITIVE = frozenset({"softplus", "logsigmoid"})
"""Functions that make a number of one sign, such as a step size or a log-probability."""


def role_of(site: FoundSite) -> tuple[Role, str]:
    """The role of a site and, if it is no activation, the reason."""
    if site.note:
        return "gate", site.note
    if site.parameter:
        return "parameter", "it is applied to parameters, not to data"
    if not site.taken:
        return "unused", "no pass reaches it with the settings of this model"
    if site.uses == {"index"}:
        return "unused", "its result is used as indices"
    return role_of_uses(site.function, site.uses)


def role_of_uses(function: str, uses: set[str] | frozenset[str]) -> tuple[Role, str]:
    """The role of a function whose result is first used in these ways ("product", "output", "other")."""
    if function == ORIGINAL or function not in SIGMOIDS | POSITIVE or not uses or "other" in uses:
        return "activation", ""
    if "product" in uses:
        return "gate", "its result only multiplies other values"
    return "output", "its result is the output of the model"
