"""Modules that use the mixture op: Bank (functions and their betas), Mixture (in a search), FrozenMixture (derived)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from nasact import activations
from nasact.activations import Candidate
from nasact.errors import MixtureError
from nasact.mixture.kernels import Choice, Kernel, Term, as_kernel
from nasact.mixture.layout import Layout
from nasact.mixture.normalisers import NORMALISERS, Normaliser
from nasact.reserved_names import ORIGINAL


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of alphas and betas: float32 for a network in half precision, as their update steps are small."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


@lru_cache(maxsize=256)
def _along(function: Callable[..., Tensor], dim: int) -> Callable[..., Tensor]:
    """A coupled function along `dim`. Cached, as compiled code is looked up by the identity of the function."""
    return partial(function, dim=dim)


class Bank(nn.Module):
    """The candidate functions of one site, with their learnable betas, each of shape `layout.shape`.

    `original`: the model's own activation, required if `names` contains "original". `own`: the candidate that is this
    function, if one of them is: the mixture then has the dtype of its result. `own_is_exact`: whether its formula gives
    the bits of `original`; otherwise it is computed by `original`.
    `betas`: initial values by key "function_beta"; the others start at their record's value.
    `where`: how messages name the site. `kernel`: what computes the mixture.
    """

    def __init__(
        self,
        names: Sequence[str],
        layout: Layout,
        *,
        original: nn.Module | None = None,
        own: str | None = None,
        own_is_exact: bool = True,
        betas: Mapping[str, Tensor] | None = None,
        where: str = "mixture",
        kernel: str | Kernel = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.names = tuple(name if name == ORIGINAL else activations.get(name).name for name in names)
        if not self.names:
            raise MixtureError(f"{where}: the candidate set is empty")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise MixtureError(f"{where}: candidate {repeated[0]!r} is in the candidate set more than once")
        if ORIGINAL in self.names and original is None:
            raise MixtureError(f"{where}: candidate 'original' needs the model's own activation: pass original=")
        self.layout = layout
        self.where = where
        self.kernel = as_kernel(kernel)
        self.op = self.kernel.prepare(self.names, layout, where)
        self.own = ORIGINAL if ORIGINAL in self.names else own
        self._by_original = ORIGINAL if own_is_exact or own is None else own
        self.original = original if self._by_original in self.names else None
        initial_betas = dict(betas or {})
        self.betas = nn.ParameterDict()
        for candidate in self.candidates():
            for beta in candidate.betas:
                key = f"{candidate.name}_{beta.name}"
                start = initial_betas.pop(key, torch.tensor(beta.init, dtype=torch.float64)).to(
                    device=device, dtype=_working_dtype(dtype)
                )
                if start.dim() and start.shape != torch.Size(layout.shape):
                    raise MixtureError(f"{where}: beta {key!r} has shape {tuple(start.shape)}, expected {layout.shape}")
                self.betas[key] = nn.Parameter(start.expand(layout.shape).clone())
        if initial_betas:
            raise MixtureError(f"{where}: no candidate has a parameter {sorted(initial_betas)[0]!r}")

    def candidates(self) -> tuple[Candidate, ...]:
        """The catalogue's records of the bank's functions, without the model's own function."""
        return tuple(activations.get(name) for name in self.names if name != ORIGINAL)

    def terms(self, x: Tensor) -> list[Term]:
        """The K candidates, with betas that broadcast against `x`."""
        return [self._term(name, x) for name in self.names]

    def _term(self, name: str, x: Tensor) -> Term:
        if name == self._by_original:
            assert self.original is not None
            return Term(name, self.original, pure=False, own=True)
        candidate = activations.get(name)
        if not candidate.elementwise:
            return Term(name, _along(candidate.function, self.layout.feature_dim(x)), own=name == self.own)
        betas = (self.layout.broadcast(self.betas[f"{name}_{beta.name}"].to(x.dtype), x) for beta in candidate.betas)
        return Term(name, candidate.function, tuple(betas), own=name == self.own)

    def choose(self, device: torch.device, dtype: torch.dtype) -> Choice:
        """Return which kernel computes inputs of this device and dtype, and why."""
        return self.op.choose(device, dtype)

    def project_(self) -> None:
        """Clamp every beta to its bounds, in place: outside them its gradient is zero."""
        for candidate in self.candidates():
            for beta in candidate.betas:
                beta.clamp_(self.betas[f"{candidate.name}_{beta.name}"])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Compute the mixture: x (N, ...), weights (*layout.shape, K) -> like x.

        An x that is not floating point is accepted only while one function has weight one and the others weight zero.
        """
        if not x.is_floating_point():
            return self._only_function(x, weights)(x)
        self.layout.check(x, self.where)
        expected = (*self.layout.shape, len(self.names))
        if not torch.jit.is_tracing() and weights.shape != expected:  # a traced shape cannot be compared
            raise MixtureError(f"{self.where}: expected weights of shape {expected}, but got {tuple(weights.shape)}")
        return self.op(x, weights, partial(self.terms, x))

    def _only_function(self, x: Tensor, weights: Tensor) -> Term:
        """The only function, if its weights are one and those of the others zero; else MixtureError."""
        rows = weights.detach().reshape(-1, len(self.names))
        first = int(rows[0].argmax())
        term = self._term(self.names[first], x)
        if term.betas or not bool((rows == torch.eye(len(self.names)).to(rows)[first]).all()):
            raise MixtureError(f"{self.where}: a mixture needs a floating point input, but got {x.dtype}")
        return term


class Mixture(nn.Module):
    """One site in a search: `sum_k p_k f_k(x)` with `p = normaliser(alpha / temperature)`.

    `alpha` (*layout.shape, K) is the architecture parameter. `init`: "uniform", the name of the candidate to start from
    (exactly if the normaliser can represent it, else up to its `vertex_slack`), or initial weights by name.

    A search may `drop` candidates. The normaliser then receives only the alphas of the remaining candidates. A dropped
    candidate has weight 0 and no gradient, and its alpha stays 0. It is still computed: dropping saves no time.
    """

    def __init__(
        self,
        bank: Bank,
        *,
        normaliser: str = "softmax",
        init: str | Mapping[str, float] = "uniform",
        temperature: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.bank = bank
        self.normaliser_name = normaliser
        NORMALISERS.get(normaliser)
        self.temperature: Tensor
        working = _working_dtype(dtype)
        self.register_buffer("temperature", torch.tensor(1.0, device=device, dtype=working))
        self.set_temperature(temperature)
        # Positions of the remaining candidates; None while no candidate is dropped, so that the state then has no such
        # entry and no pass pays for it. Positions instead of a mask: torch.compile and torch.export know their number.
        self.alive_at: Tensor | None
        self.register_buffer("alive_at", None)
        alpha = self.normaliser.inverse(self._initial_weights(init), torch.tensor(temperature, dtype=torch.float64))
        shape = (*bank.layout.shape, len(bank.names))
        self.alpha = nn.Parameter(alpha.to(device=device, dtype=working).expand(shape).clone())

    def _initial_weights(self, init: str | Mapping[str, float]) -> Tensor:
        names = self.names
        if isinstance(init, Mapping):
            unknown = [name for name in init if name not in names]
            if unknown:
                raise MixtureError(
                    f"{self.bank.where}: init names {unknown[0]!r}, which is not in the bank {list(names)}"
                )
            weights = torch.tensor([float(init.get(name, 0.0)) for name in names], dtype=torch.float64)
            if not self.normaliser.signed and bool((weights < 0).any()):
                raise MixtureError(
                    f"{self.bank.where}: {self.normaliser_name} weights cannot be negative, but got {dict(init)}"
                )
            return self.normaliser.renormalise(weights, self.bank.where)
        if init == "uniform":
            return self.normaliser.uniform(len(names))
        if init not in names:
            raise MixtureError(f"{self.bank.where}: init names {init!r}, which is not in the bank {list(names)}")
        return self.normaliser.vertex(len(names), names.index(init))

    @property
    def normaliser(self) -> Normaliser:
        return NORMALISERS.get(self.normaliser_name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the K candidates, in the order of alpha's last dimension."""
        return self.bank.names

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature (> 0), by which tempered normalisers divide alpha."""
        if not temperature > 0:
            raise MixtureError(f"{self.bank.where}: the temperature must be above 0, but got {temperature}")
        self.temperature.fill_(temperature)

    @property
    def alive(self) -> Tensor:
        """Mask of the remaining (not dropped) candidates: bool (K,), on the CPU."""
        alive = torch.full((len(self.names),), self.alive_at is None)
        return alive if self.alive_at is None else alive.index_fill(0, self.alive_at.cpu(), True)

    @torch.no_grad()
    def drop(self, names: Sequence[str]) -> None:
        """Remove candidates from the search permanently; the alphas of the others are projected to the feasible set.

        A row whose remaining alphas cannot be normalised gets equal weights. Dropping a candidate again changes
        nothing. MixtureError for a name that is not in the bank, or if no candidate would remain.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise MixtureError(
                f"{self.bank.where}: cannot drop {unknown[0]!r}, which is not in the bank {list(self.names)}"
            )
        remaining = [i for i, alive in enumerate(self.alive.tolist()) if alive and self.names[i] not in names]
        if not remaining:
            raise MixtureError(f"{self.bank.where}: cannot drop {sorted(names)}: no candidate would remain")
        if len(remaining) == len(self.names):
            return
        self.alive_at = torch.tensor(remaining, device=self.alpha.device)
        rows = self.alpha.index_select(-1, self.alive_at)
        if self.normaliser.total == "absolute":  # for the other totals, the projection handles rows of zeros
            rows = torch.where((rows == 0).all(-1, keepdim=True), 1.0 / len(remaining), rows)
        self._set_alive(rows)
        self.project_()

    def _set_alive(self, rows: Tensor) -> None:
        assert self.alive_at is not None
        self.alpha.copy_(torch.zeros_like(self.alpha).index_copy(-1, self.alive_at, rows))

    @torch.no_grad()
    def project_(self) -> None:
        """Project alpha to the normaliser's feasible set and clamp betas to their bounds. Call after every step."""
        self.bank.project_()
        project = self.normaliser.project
        if self.alive_at is not None:
            rows = self.alpha.index_select(-1, self.alive_at)
            self._set_alive(rows if project is None else project(rows))
        elif project is not None:
            self.alpha.copy_(project(self.alpha))

    @torch.no_grad()
    def weights(self) -> Tensor:
        """The mixture weights in evaluation: (*layout.shape, K), detached; 0 for dropped candidates."""
        return self._weights(False).detach().clone()

    def _weights(self, sample: bool) -> Tensor:
        buffers = self._buffers  # takes a tenth of the time of `self.alive_at`, in every forward pass
        alive_at, temperature = buffers["alive_at"], buffers["temperature"]
        assert temperature is not None
        if alive_at is None:
            return self.normaliser.weights(self.alpha, temperature, sample)
        p = self.normaliser.weights(self.alpha.index_select(-1, alive_at), temperature, sample)
        return torch.zeros_like(self.alpha).index_copy(-1, alive_at, p)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.bank(x, self._weights(self.training))
        return mixed

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Load a state; a state without `alive_at` restores all candidates.

        An override, as in torch's own BatchNorm: the buffer must exist before torch copies the state into it.
        """
        saved = state_dict.get(f"{prefix}alive_at")
        self.alive_at = None if saved is None else torch.empty_like(saved, device=self.alpha.device)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        return f"{', '.join(self.names)}; {self.normaliser_name}, {self.bank.layout.level}"


class Activation(nn.Module):
    """One catalogue function as a module of a derived network; its betas stay trainable."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        assert len(bank.names) == 1
        self.bank = bank

    def forward(self, x: Tensor) -> Tensor:
        self.bank.layout.check(x, self.bank.where)
        return self.bank.terms(x)[0](x)

    def extra_repr(self) -> str:
        return self.bank.names[0]


class FrozenMixture(nn.Module):
    """One site of a derived network: fixed mixture weights (*layout.shape, K) as a buffer; betas stay trainable."""

    def __init__(self, bank: Bank, weights: Tensor) -> None:
        super().__init__()
        self.bank = bank
        self.weights: Tensor
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.bank(x, self.weights)
        return mixed

    def extra_repr(self) -> str:
        return f"{', '.join(self.bank.names)}; {self.bank.layout.level}"
