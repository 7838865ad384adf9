"""The public records of what was found in a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nasact.surgery.channels import Channels

Role = Literal["activation", "gate", "output", "parameter", "unused"]
"""What the result of a site is for.

"activation": a hidden value. "gate": factors for other values (the sigmoid of squeeze and excitation, of an LSTM cell,
of attention). "output": the model's own output (a final sigmoid). "parameter": a function of parameters, not of data.
"unused": it is not reached with the settings of this model.
"""


@dataclass(frozen=True)
class Site:
    """One place in a model where an activation is applied.

    `function`: the model's own function, as a catalogue name, or "original" if the catalogue does not have it.
    `detail`: how the model's code or printed form writes it. `kind`: a module, a functional call, or an attribute that
    holds a function. `channels`: of its input, as far as known without running the model; None: unknown.
    `role`: only an "activation" is searched by default. `reason`: for another role, why it is no activation; else "".
    `place`: the file and line of a call; "" for a module.
    """

    name: str
    function: str
    detail: str
    kind: Literal["module", "call", "attribute"]
    channels: Channels | None = None
    role: Role = "activation"
    reason: str = ""
    place: str = ""


@dataclass(frozen=True)
class Unreachable:
    """A part of the model whose activations cannot be replaced, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class SiteReport:
    """The chosen sites of a model, in the order of its forward, and what is not replaced.

    `gates`: sites of another role than "activation", which are left alone unless `include` gives their full name.
    `unreachable`: parts with activations that cannot be replaced.
    """

    sites: tuple[Site, ...]
    unreachable: tuple[Unreachable, ...]
    gates: tuple[Site, ...] = ()
