"""The genotype: the functions of each site and their weights. It can be read, serialised and applied to a model."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasact import activations
from nasact.errors import GenotypeError, MixtureError, UnknownName, did_you_mean
from nasact.mixture import LEVELS, NORMALISERS, Activation, Bank, FrozenMixture, Kernel, Layout, Mixture
from nasact.reserved_names import ORIGINAL
from nasact.supernet.preparation import as_candidate, function_names, install_with_originals, plan_all, reference_tensor
from nasact.surgery.audited_plan import Example
from nasact.surgery.sites import plan_surgery

SCHEMA = 1
"""Version of the genotype's JSON."""

Nested = float | tuple["Nested", ...]


def _freeze(values: Any) -> Nested:
    return tuple(_freeze(value) for value in values) if isinstance(values, list | tuple) else float(values)


def _thaw(values: Nested) -> Any:
    return [_thaw(value) for value in values] if isinstance(values, tuple) else values


@dataclass(frozen=True)
class SiteGene:
    """The functions of one site.

    `weights`: (*layout.shape, len(functions)). `betas`: by key "function_beta", each (*layout.shape).
    """

    functions: tuple[str, ...]
    weights: Nested
    betas: Mapping[str, Nested]
    channel_dim: int = 1

    @classmethod
    def make(cls, names: Sequence[str], weights: Tensor, betas: Mapping[str, Tensor], layout: Layout) -> SiteGene:
        """The gene with weights (*layout.shape, K) for K names; functions whose weights are all zero are left out."""
        used = [k for k in range(len(names)) if bool((weights[..., k] != 0).any())] or [0]
        functions = tuple(names[k] for k in used)
        keys = [f"{name}_{beta.name}" for name in functions if name != ORIGINAL for beta in activations.get(name).betas]
        return cls(
            functions,
            _freeze(weights[..., used].tolist()),
            {key: _freeze(betas[key].tolist()) for key in keys if key in betas},
            layout.channel_dim,
        )

    def weights_tensor(self) -> Tensor:
        """The weights as a tensor: (*layout.shape, K), float64."""
        return torch.tensor(_thaw(self.weights), dtype=torch.float64)

    @property
    def single(self) -> str | None:
        """The name of the only function, if the site has one function with weight 1 at layer level; else None."""
        return self.functions[0] if self.weights == (1.0,) else None

    def describe(self) -> str:
        """A text such as `relu` or `0.62 relu + 0.38 tanh`; mean weights over channels or units where they vary."""
        if self.single:
            return self.single
        weights = self.weights_tensor()
        mean = weights.reshape(-1, weights.shape[-1]).mean(0)
        text = " + ".join(f"{value:.2f} {name}" for name, value in zip(self.functions, mean.tolist(), strict=True))
        return text.replace("+ -", "- ") + ("" if weights.dim() == 1 else f" (mean of {weights[..., 0].numel()})")


@dataclass(frozen=True)
class Genotype:
    """The gene of each site, in the order in which the model applies them. Made by `derive` or read from JSON."""

    sites: Mapping[str, SiteGene]
    level: str
    normaliser: str
    top_k: int | Literal["all"]

    @classmethod
    def uniform(
        cls,
        model: nn.Module,
        function: str,
        *,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        partial: bool = False,
        example_input: Example | None = None,
    ) -> Genotype:
        """The genotype with one function at every chosen site of `model`; "original": the model's own functions.

        The sites are those of `relax` with the same `include`, `exclude`, `partial` and `example_input`.
        """
        name = function if function == ORIGINAL else activations.get(function).name
        plan = plan_surgery(model, include=include, exclude=exclude, partial=partial, example_input=example_input)
        gene = SiteGene.make((name,), torch.ones(1), {}, Layout())
        sites = {
            site: replace(gene, channel_dim=s.channels.dim if s.channels else 1) for site, (s, _) in plan.sites.items()
        }
        return cls(sites=sites, level="layer", normaliser="softmax", top_k=1)

    @classmethod
    def original(cls, model: nn.Module, **options: Any) -> Genotype:
        """The genotype in which every site keeps the model's own function. `options` as in `uniform`."""
        return cls.uniform(model, ORIGINAL, **options)

    def random_like(self, space: str | Sequence[str], generator: torch.Generator) -> Genotype:
        """Draw a genotype with the same sites, level and k: k different functions, weights uniform on the simplex."""
        names = function_names(space)
        sites = {}
        for name, gene in self.sites.items():
            shape = gene.weights_tensor().shape[:-1]
            k = len(names) if self.top_k == "all" else min(self.top_k, len(names))
            order = torch.rand((*shape, len(names)), generator=generator, dtype=torch.float64).argsort(-1)[..., :k]
            # a flat Dirichlet distribution: exponential variables, divided by their sum
            drawn = torch.empty((*shape, k), dtype=torch.float64).exponential_(generator=generator)
            weights = torch.zeros((*shape, len(names)), dtype=torch.float64)
            weights.scatter_(-1, order, drawn / drawn.sum(-1, keepdim=True))
            layout = Layout(level=self.level, shape=tuple(shape), channel_dim=gene.channel_dim)
            sites[name] = SiteGene.make(names, weights, {}, layout)
        return replace(self, sites=sites)

    def functions(self) -> tuple[str, ...]:
        """Names of all functions used, each once, in order of first use."""
        return tuple(dict.fromkeys(function for gene in self.sites.values() for function in gene.functions))

    def apply(self, model: nn.Module, *, inplace: bool = False, kernel: str | Kernel = "auto") -> nn.Module:
        """Return `model` with this genotype's functions at its sites: a copy, unless `inplace`.

        Every site that the genotype names is replaced in the same way, also by the model's own function, so that
        networks of different genotypes differ in their functions only. A single function becomes torch's own module if
        torch has one. Sites that the genotype does not name, and weights, the names of the model's own state, hooks,
        device, dtype and mode, do not change. `kernel`: what computes the sites with a mixture.

        Raises GenotypeError if a site does not exist in the model, or if the model is a supernet: its trained weights
        are kept by `Supernet.derive`. SurgeryError if the model cannot be copied.
        """
        if any(isinstance(module, Mixture) for module in model.modules()):
            raise GenotypeError(
                "the model is a supernet, which holds mixtures: use supernet.derive(genotype), which keeps its trained "
                "weights, or apply the genotype to the model that the supernet was made of"
            )
        plan = plan_all(model, tuple(self.sites), inplace=inplace)
        genotype = self.with_present_names(plan.sites)
        genotype.require_sites(plan.sites, type(model).__name__)
        modules: dict[str, nn.Module] = {}
        for name in genotype.sites:
            site, location = plan.sites[name]
            reference = reference_tensor(location.parent, plan.model)
            modules[name] = genotype.site_module(name, site.function, location.original, reference, kernel)
        return install_with_originals(plan, modules)

    def with_present_names(self, known: Collection[str]) -> Genotype:
        """This genotype with the names that sites have now: an earlier version called an in-place `act` `act_site`."""

        def present(name: str) -> str:
            stripped = name.removesuffix("_site")
            return stripped if name not in known and stripped in known and stripped not in self.sites else name

        return replace(self, sites={present(name): gene for name, gene in self.sites.items()})

    def require_sites(self, known: Collection[str], where: str) -> None:
        """Raise GenotypeError if one of this genotype's sites is not in `known`, the sites of the model `where`."""
        for name in self.sites:
            if name not in known:
                base, _, number = name.rpartition("_")
                hint = did_you_mean(name, known)
                if number.isdigit() and base in known:
                    hint = (
                        f" {base!r} may be what an earlier version listed as several sites: a call in a loop is one "
                        "site that acts in every turn, unless the loop goes over modules"
                    )
                raise GenotypeError(f"site {name!r} does not exist in {where} (it has {', '.join(known)}).{hint}")

    def site_module(
        self, name: str, own_function: str, original: nn.Module, reference: Tensor, kernel: str | Kernel
    ) -> nn.Module:
        """The module that site `name` holds in a derived network.

        If the gene is the site's own function, by its name or as "original": `original` itself, the model's own
        activation. Another single function is torch's own module if torch has one. `own_function`: what `original`
        computes. `reference`: a tensor with the device and dtype of the site. `kernel`: what computes a mixture.
        """
        gene = self.sites[name]
        if gene.single in (ORIGINAL, own_function):
            return original
        if gene.single:
            candidate = activations.get(gene.single)
            if candidate.module is not None and not candidate.betas and candidate.elementwise:
                return candidate.module()
        weights = gene.weights_tensor()
        bank = Bank(
            gene.functions,
            Layout(level=self.level, shape=tuple(weights.shape[:-1]), channel_dim=gene.channel_dim),
            original=as_candidate(original),
            own=own_function,
            betas={key: torch.tensor(_thaw(value)) for key, value in gene.betas.items()},
            where=f"site {name!r}",
            kernel="reference" if gene.single else kernel,
            device=reference.device,
            dtype=reference.dtype,
        )
        return Activation(bank) if gene.single else FrozenMixture(bank, weights.to(reference))

    def to_dict(self) -> dict[str, Any]:
        """The genotype as plain JSON types, with the schema's version."""
        return {
            "schema": SCHEMA,
            "level": self.level,
            "normaliser": self.normaliser,
            "top_k": self.top_k,
            "sites": {
                name: {
                    "functions": list(gene.functions),
                    "weights": _thaw(gene.weights),
                    "betas": {key: _thaw(value) for key, value in gene.betas.items()},
                    "channel_dim": gene.channel_dim,
                }
                for name, gene in self.sites.items()
            },
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read the text of `to_json`; GenotypeError, in one line, for anything else."""
        try:
            tree = json.loads(text)
        except json.JSONDecodeError as error:
            raise GenotypeError(f"genotype: not JSON: {error}") from None
        return cls.from_dict(tree)

    @classmethod
    def from_dict(cls, tree: Any) -> Genotype:
        """Read the result of `to_dict`; GenotypeError, which names the place, for anything else."""
        _expect_keys(tree, {"schema", "level", "normaliser", "top_k", "sites"}, "genotype")
        if tree["schema"] != SCHEMA:
            raise GenotypeError(f"genotype: schema: this version reads {SCHEMA}, but got {tree['schema']!r}")
        if tree["level"] not in LEVELS:
            raise GenotypeError(
                f"genotype: level: unknown level {tree['level']!r}.{did_you_mean(tree['level'], LEVELS)}"
            )
        if tree["normaliser"] not in NORMALISERS:
            raise GenotypeError(f"genotype: normaliser: {NORMALISERS.unknown(tree['normaliser'])}")
        top_k = tree["top_k"]
        if top_k != "all" and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
            raise GenotypeError(f"genotype: top_k: expected a whole number above 0 or 'all', but got {top_k!r}")
        if not isinstance(tree["sites"], dict) or not tree["sites"]:
            raise GenotypeError("genotype: sites: expected a mapping of at least one site")
        sites = {str(name): _read_gene(gene, f"genotype: site {name!r}", tree) for name, gene in tree["sites"].items()}
        return cls(sites=sites, level=tree["level"], normaliser=tree["normaliser"], top_k=top_k)


def _expect_keys(tree: Any, keys: set[str], where: str) -> None:
    if not isinstance(tree, dict):
        raise GenotypeError(f"{where}: expected a mapping, but got {type(tree).__name__}")
    for key in tree:
        if key not in keys:
            raise GenotypeError(f"{where}: unknown key {key!r}.{did_you_mean(key, keys)}")
    missing = sorted(keys - set(tree))
    if missing:
        raise GenotypeError(f"{where}: the key {missing[0]!r} is missing")


def _read_gene(tree: Any, where: str, genotype: dict[str, Any]) -> SiteGene:
    _expect_keys(tree, {"functions", "weights", "betas", "channel_dim"}, where)
    names = tree["functions"]
    if not isinstance(names, list) or not names:
        raise GenotypeError(f"{where}: functions: expected a list of at least one name, but got {names!r}")
    try:
        functions = tuple(name if name == ORIGINAL else activations.get(name).name for name in names)
        weights = torch.tensor(tree["weights"], dtype=torch.float64)
        betas = {
            key: _freeze(torch.tensor(value, dtype=torch.float64).tolist()) for key, value in tree["betas"].items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise GenotypeError(f"{where}: weights and betas must be numbers in regular lists: {error}") from None
    except UnknownName as error:
        raise GenotypeError(f"{where}: {error}") from None
    if weights.dim() == 0 or weights.shape[-1] != len(functions):
        shape = tuple(weights.shape)
        raise GenotypeError(f"{where}: weights of shape {shape} do not fit {len(functions)} function(s)")
    expected = {"layer": weights.dim() == 1, "channel": weights.dim() == 2, "neuron": weights.dim() >= 2}
    if not expected[genotype["level"]]:
        raise GenotypeError(f"{where}: weights of shape {tuple(weights.shape)} do not fit level {genotype['level']!r}")
    if not isinstance(tree["channel_dim"], int):
        raise GenotypeError(f"{where}: channel_dim: expected a whole number, but got {tree['channel_dim']!r}")
    try:
        NORMALISERS.get(genotype["normaliser"]).renormalise(weights, where)
    except MixtureError as error:
        raise GenotypeError(str(error)) from None
    return SiteGene(functions, _freeze(weights.tolist()), betas, tree["channel_dim"])
