"""Relaxing at every level, deriving, and genotypes: they survive JSON and refuse a model that does not fit."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.errors import GenotypeError, MixtureError, SurgeryError, UnknownName
from nasact.mixture import NORMALISERS, FrozenMixture
from nasact.supernet import Genotype, Supernet, derive, find_sites, relax
from nasact.supernet.top_k import keep_top_k


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(4 * 3 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.fc(self.features(x).flatten(1)))


X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(name="model")
def _model() -> nn.Module:
    torch.manual_seed(0)
    return ConvNet()


def randomised(model: nn.Module, **options: Any) -> Supernet:
    supernet = relax(model, ["relu", "tanh", "snake"], example_input=X, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for alpha in supernet.arch_parameters():
            alpha.copy_(torch.rand(alpha.shape, generator=generator) + 0.1)
    supernet.project_()
    return supernet.eval()


@pytest.mark.parametrize(
    ("level", "shapes"),
    [("layer", [(3,), (3,)]), ("channel", [(4, 3), (5, 3)]), ("neuron", [(4, 6, 6, 3), (5, 3)])],
)
def test_the_level_determines_which_units_share_weights(model: nn.Module, level: str, shapes: list[Any]) -> None:
    supernet = relax(model, ["relu", "tanh", "sin"], level=level, example_input=X)
    assert [tuple(alpha.shape) for alpha in supernet.arch_parameters()] == shapes
    assert supernet(X).shape == (6, 5)


def test_channels_are_inferred_from_the_layers_without_an_example(model: nn.Module) -> None:
    assert [tuple(a.shape) for a in relax(model, level="channel").arch_parameters()] == [(4, 4), (5, 4)]


@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("normaliser", NORMALISERS.names())
def test_a_network_with_all_functions_equals_the_supernet(model: nn.Module, level: str, normaliser: str) -> None:
    supernet = randomised(model, level=level, normaliser=normaliser)
    net = derive(supernet, "all").apply(with_weights_of(supernet, model)).eval()
    torch.testing.assert_close(net(X), supernet(X), rtol=1e-5, atol=1e-6)
    assert not isinstance(net, Supernet)


def with_weights_of(supernet: Supernet, model: nn.Module) -> nn.Module:
    """The model with the supernet's weights, so that only the activations differ."""
    weights = {name: value for name, value in supernet.model.state_dict().items() if name in model.state_dict()}
    model.load_state_dict(weights)
    return model


@given(
    p=st.lists(st.floats(-3, 3).filter(lambda v: abs(v) > 1e-3), min_size=2, max_size=6, unique_by=abs),
    k=st.integers(1, 6),
)
@settings(max_examples=80, deadline=None)
def test_top_k_keeps_the_k_largest_magnitudes(p: list[float], k: int) -> None:
    k = min(k, len(p))
    kept = keep_top_k(torch.tensor(p, dtype=torch.float64), k)
    expected = sorted(p, key=abs, reverse=True)[:k]
    assert sorted(kept[kept != 0].tolist()) == pytest.approx(sorted(expected))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_kept_weights_sum_to_one_and_are_frozen(model: nn.Module, top_k: int) -> None:
    genotype = derive(randomised(model), top_k)
    assert len(genotype.sites) == 2
    net = genotype.apply(model)
    for gene in genotype.sites.values():
        assert len(gene.functions) == top_k
        assert float(gene.weights_tensor().sum()) == pytest.approx(1.0)
    frozen = [module for module in net.modules() if isinstance(module, FrozenMixture)]
    assert len(frozen) == (0 if top_k == 1 else 2)
    assert not any("alpha" in name or "weights" in name for name, _ in net.named_parameters())


def test_a_single_function_becomes_torch_s_own_module(model: nn.Module) -> None:
    net = Genotype.uniform(model, "tanh").apply(model)
    assert type(net.features[2]) is nn.Tanh
    assert {type(module).__module__.split(".")[0] for module in net.modules()} <= {"torch", ConvNet.__module__}


class CalledTwice(nn.Module):
    """A module with a parameter that is called at two places; a function that is called in place."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.PReLU()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.act(self.b(self.act(self.a(x)))))


def test_the_model_s_own_functions_are_installed_as_any_other_and_keep_the_names_of_their_state() -> None:
    torch.manual_seed(0)
    model, x = CalledTwice(), torch.randn(3, 5)
    with torch.no_grad():
        model.act.weight.fill_(0.6)
    original, other = (Genotype.uniform(model, name).apply(model) for name in ("original", "tanh"))
    assert type(original) is not CalledTwice, "calls in its forward were exchanged"
    assert len(Genotype.original(model).sites) == 3
    sites = {*Genotype.original(model).sites}
    assert sites <= {name for name, _ in other.named_modules()}
    assert sites - {"act_1"} <= {name for name, _ in original.named_modules()}, (
        "both calls of act are left to the model"
    )
    assert list(original.state_dict()) == list(model.state_dict())
    assert torch.equal(original(x), model(x))
    for net in (model, original):
        net(x).square().sum().backward()
    gradients = zip(model.parameters(), original.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in gradients)
    copied = pickle.loads(pickle.dumps(deepcopy(original)))
    copied.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})
    assert float(copied.act.weight.detach()) == pytest.approx(1.2)
    model.load_state_dict(copied.state_dict())
    assert torch.equal(copied(x), model(x)), "both calls use the one parameter"
    assert torch.equal(
        torch.func.functional_call(copied, {"act.weight": torch.tensor([0.1])}, x), change_slope(model)(x)
    )
    copied.load_state_dict(model.state_dict(), assign=True)
    for net in (torch.compile(copied, fullgraph=True, backend="aot_eager"), torch.export.export(copied, (x,)).module()):
        torch.testing.assert_close(net(x), model(x))


def change_slope(model: CalledTwice) -> CalledTwice:
    with torch.no_grad():
        model.act.weight.fill_(0.1)
    return model


def test_the_model_s_own_module_keeps_its_mode() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.RReLU())
    model[1].eval()
    x = torch.randn(3, 5)
    assert torch.equal(Genotype.original(model).apply(model)(x), model(x))
    supernet = relax(model, ["relu"], normaliser="affine", init="original", kernel="reference")
    assert torch.equal(supernet(x), model(x))
    assert not torch.equal(supernet.train()(x), supernet.train()(x))


class SqueezeExcitation(nn.Module):
    """A gate, and no activation that is none."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.fc, self.activation, self.scale = nn.Linear(4, 4), activation, nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(self.activation(self.fc(x)))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Identity()], ids=["relu", "none"])
@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
def test_a_gate_that_was_searched_is_a_site_of_the_genotype(activation: nn.Module, level: str) -> None:
    model, x = SqueezeExcitation(activation), torch.randn(3, 4)
    assert [gate.name for gate in find_sites(SqueezeExcitation(nn.ReLU())).gates] == ["scale"]
    supernet = relax(model, ["hard_sigmoid", "tanh"], include=["*", "scale"], level=level, example_input=x)
    assert "scale" in supernet.mixtures()
    genotype = derive(supernet, "all")
    net = genotype.apply(with_weights_of(supernet, model))
    torch.testing.assert_close(net(x), supernet(x))
    torch.testing.assert_close(supernet.derive(genotype)(x), supernet(x))
    uniform = Genotype.uniform(model, "tanh", include=["scale"]).apply(model)
    assert torch.equal(uniform(x), x * torch.tanh(model.activation(model.fc(x))))


def test_learned_betas_are_part_of_the_genotype_and_stay_trainable(model: nn.Module) -> None:
    supernet = relax(model, ["relu", "snake"], normaliser="free", init={"snake": 1.0})
    with torch.no_grad():
        for mixture in supernet.mixtures().values():
            mixture.bank.betas["snake_a"].fill_(2.5)
    genotype = Genotype.from_json(derive(supernet).to_json())
    assert [gene.betas for gene in genotype.sites.values()] == [{"snake_a": 2.5}] * 2
    net = genotype.apply(model)
    betas = {name: p for name, p in net.named_parameters() if "snake_a" in name}
    assert len(betas) == 2
    assert all(float(p.detach()) == 2.5 for p in betas.values())


@pytest.mark.parametrize("level", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("top_k", [1, 2, "all"])
def test_a_genotype_survives_json_and_has_random_counterparts(model: nn.Module, level: str, top_k: Any) -> None:
    genotype = derive(randomised(model, level=level), top_k)
    assert Genotype.from_json(genotype.to_json()) == genotype
    drawn = genotype.random_like(["relu", "tanh", "sin", "cos"], torch.Generator().manual_seed(5))
    again = genotype.random_like(["relu", "tanh", "sin", "cos"], torch.Generator().manual_seed(5))
    other = genotype.random_like(["relu", "tanh", "sin", "cos"], torch.Generator().manual_seed(6))
    assert drawn == again
    assert drawn != other
    assert drawn.apply(model).eval()(X).shape == (6, 5)
    for name, gene in drawn.sites.items():
        weights = gene.weights_tensor()
        assert weights.shape[:-1] == genotype.sites[name].weights_tensor().shape[:-1]
        assert ((weights != 0).sum(-1) == (4 if top_k == "all" else top_k)).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_entropy_is_log_k_for_equal_weights_and_zero_for_one_function(model: nn.Module) -> None:
    supernet = relax(model, ["relu", "tanh", "sin"], normaliser="free")
    assert list(supernet.entropy().values()) == pytest.approx([1.0986123] * 2)
    with torch.no_grad():
        for alpha in supernet.arch_parameters():
            alpha.copy_(torch.tensor([0.0, -2.0, 0.0]))
    assert list(supernet.entropy().values()) == pytest.approx([0.0] * 2)


def test_alphas_and_weights_are_disjoint(model: nn.Module) -> None:
    supernet = relax(model, ["relu", "snake"])
    arch = {id(p) for p in supernet.arch_parameters()}
    weights = {id(p) for p in supernet.weight_parameters()}
    assert len(arch) == 2
    assert not arch & weights
    assert arch | weights == {id(p) for p in supernet.parameters()}
    assert len(weights) == len(list(model.parameters())) + 2, "the model's own and one beta per site"


def test_a_top_k_outside_the_bank_is_refused(model: nn.Module) -> None:
    for top_k in (0, 4):
        message = rf"top_k must be between 1 and 3 \(the number of its candidates\), but got {top_k}"
        with pytest.raises(GenotypeError, match=message):
            derive(randomised(model), top_k)


def test_affine_weights_that_sum_to_zero_cannot_be_derived(model: nn.Module) -> None:
    supernet = relax(model, ["relu", "tanh", "sin"], normaliser="affine")
    with torch.no_grad():
        for alpha in supernet.arch_parameters():
            alpha.copy_(torch.tensor([1.5, -1.5, 1.0]))
    with pytest.raises(MixtureError, match=r"site 'features.2': affine weights .* sum to zero"):
        derive(supernet, 2)


def test_a_level_that_needs_an_example_asks_for_it(model: nn.Module) -> None:
    with pytest.raises(MixtureError, match=r"site 'features.2': level 'neuron' .* pass example_input="):
        relax(model, level="neuron")


def test_a_genotype_of_another_model_is_refused_with_the_nearest_site(model: nn.Module) -> None:
    tree = Genotype.uniform(model, "tanh").to_dict()
    tree["sites"]["features.3"] = tree["sites"].pop("features.2")
    with pytest.raises(
        GenotypeError, match=r"site 'features.3' does not exist in ConvNet .* Did you mean 'features.2'"
    ):
        Genotype.from_dict(tree).apply(model)


def changed(**changes: Any) -> dict[str, Any]:
    tree = {
        "schema": 1, "level": "layer", "normaliser": "affine", "top_k": 2,
        "sites": {"act": {"functions": ["relu", "tanh"], "weights": [0.5, 0.5], "betas": {}, "channel_dim": 1}},
    }  # fmt: skip
    gene = tree["sites"]["act"]  # type: ignore[index]
    for key, value in changes.items():
        (gene if key in gene else tree)[key] = value
    return tree


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "genotype: expected a mapping, but got list"),
        (changed(schema=7), "genotype: schema: this version reads 1, but got 7"),
        (changed(level="layr"), "genotype: level: unknown level 'layr'. Did you mean 'layer'?"),
        (changed(normaliser="afine"), "genotype: normaliser: unknown normaliser 'afine'. Did you mean 'affine'?"),
        (changed(top_k=0), "genotype: top_k: expected a whole number above 0 or 'all', but got 0"),
        (changed(sites={}), "genotype: sites: expected a mapping of at least one site"),
        (changed(stes=1), "genotype: unknown key 'stes'. Did you mean 'sites'?"),
        (changed(functions=["relu", "tahn"]), "genotype: site 'act': unknown function 'tahn'. Did you mean 'tanh'"),
        (changed(functions=[]), "genotype: site 'act': functions: expected a list of at least one name"),
        (changed(weights=[1.0]), "genotype: site 'act': weights of shape (1,) do not fit 2 function(s)"),
        (changed(weights=[[1.0, 0.0]]), "genotype: site 'act': weights of shape (1, 2) do not fit level 'layer'"),
        (changed(weights=["a", "b"]), "genotype: site 'act': weights and betas must be numbers in regular lists"),
        (changed(weights=[1.0, -1.0]), "genotype: site 'act': affine weights [1.0, -1.0] sum to zero"),
    ],
)
def test_an_invalid_genotype_is_refused_in_one_line(tree: Any, message: str) -> None:
    with pytest.raises(GenotypeError) as caught:
        Genotype.from_json(json.dumps(tree))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(GenotypeError, match="genotype: not JSON"):
        Genotype.from_json("{")


def test_the_refusal_of_an_unknown_function_names_a_near_match(model: nn.Module) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'tanh'"):
        Genotype.uniform(model, "tahn")


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        ([], MixtureError, "site 'features.2': the candidate set is empty"),
        (["relu", "relu"], MixtureError, "more than once"),
        ("basci", Exception, "basic"),
    ],
)
def test_impossible_search_spaces_are_refused(model: nn.Module, space: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        relax(model, space)


def test_a_supernet_is_not_relaxed_again(model: nn.Module) -> None:
    supernet = relax(model)
    for each in (supernet, supernet.model, nn.Sequential(supernet)):
        with pytest.raises(SurgeryError, match="the model is a supernet already"):
            relax(each)


class InALoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = torch.tanh(self.a(x))
        return self.act(x) + x


def test_a_genotype_of_an_earlier_version_loads_or_says_why_not() -> None:
    model, genotype = InALoop(), Genotype.uniform(InALoop(), "softsign")
    assert list(genotype.sites) == ["tanh", "act"]
    gene = genotype.sites["act"]
    earlier = Genotype({"tanh": gene, "act_site": gene}, "layer", "softmax", 1)
    x = torch.randn(3, 4)
    torch.testing.assert_close(earlier.apply(model)(x), genotype.apply(model)(x), rtol=0, atol=0)
    with pytest.raises(GenotypeError, match=r"'tanh_1' does not exist.*a call in a loop is one site"):
        Genotype({"tanh": gene, "tanh_1": gene}, "layer", "softmax", 1).apply(model)
