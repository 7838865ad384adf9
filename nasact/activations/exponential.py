"""Candidates that smooth relu's corner by an exponential: softplus, elu and their relatives."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from nasact.activations.candidate import INF, Candidate, register

register(
    Candidate(
        name="softplus",
        function=functional.softplus,
        formula="ln(1 + e^x)",
        source="Dugas et al. 2001",
        range=(0.0, INF),
        monotone=True,
        left="0",
        right="x",
        module=nn.Softplus,
    )
)
register(
    Candidate(
        name="logsigmoid",
        function=functional.logsigmoid,
        formula="-ln(1 + e^-x)",
        source="torch.nn.LogSigmoid",
        range=(-INF, 0.0),
        monotone=True,
        left="x",
        right="0",
        aliases=("log_sigmoid",),
        module=nn.LogSigmoid,
    )
)
register(
    Candidate(
        name="elu",
        function=functional.elu,
        formula="x where x > 0, else e^x - 1",
        source="arXiv:1511.07289",
        range=(-1.0, INF),
        monotone=True,
        left="-1",
        right="x",
        module=nn.ELU,
    )
)
register(
    Candidate(
        name="selu",
        function=functional.selu,
        formula="1.050701 x where x > 0, else 1.758099 (e^x - 1)",
        source="arXiv:1706.02515",
        range=(-1.7580993408473766, INF),
        monotone=True,
        left="-1.758099",
        right="1.050701 x",
        kinks=(0.0,),
        module=nn.SELU,
    )
)
register(
    Candidate(
        name="celu",
        function=functional.celu,
        formula="max(x, 0) + min(e^x - 1, 0)",
        source="arXiv:1704.07483",
        range=(-1.0, INF),
        monotone=True,
        left="-1",
        right="x",
        module=nn.CELU,
    )
)
