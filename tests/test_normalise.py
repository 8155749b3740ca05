"""Kernels divided by their standard deviation over edges: a generalised He initialisation."""

import copy

import pytest
import torch
from tables import group

from emkernel import Scalar, V, knn_graph
from emkernel.nn import ImplicitKernel, PointConv

NAMES = ["octahedral", "SO(3)", "SU(2)", "mirror", "skew D7", "O(1,3)", "Borel"]
COMPACT = NAMES[:5]


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(name, attributes=True, seed=0, **options):
    g = group(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        edge_rep = (Scalar + V)(g) if attributes else None
        return ImplicitKernel((2 * Scalar + V)(g), (Scalar + 2 * V)(g), edge_rep, cutoff=2.0, **options).double()


def edges(kernel, seed, many=1024):
    vec = kernel.embed.example(many, torch.Generator().manual_seed(seed))
    return vec, None if kernel.edge_rep is None else randn(many, kernel.edge_rep.size, seed=seed)


@pytest.mark.parametrize("attributes", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_is_divided_by_its_standard_deviation(name, attributes):
    kernel = make(name, attributes)
    there = edges(kernel, seed=5)
    plain = kernel(*there).detach()
    found = kernel.normalise()
    assert found != pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(kernel(*there), plain / found)
    assert kernel.normalise() == found
    torch.testing.assert_close(kernel(*there), plain / found)


@pytest.mark.parametrize("attributes", [True, False])
@pytest.mark.parametrize("name", COMPACT)
def test_gates_begin_as_different_functions_that_vary_by_the_spread(name, attributes):
    variances, ratios = [], []
    for seed in range(5):
        kernel, gates = make(name, attributes, seed, spread=0.3), []
        kernel.net.register_forward_hook(lambda module, given, out, gates=gates: gates.append(out.detach()))
        kernel(*edges(kernel, seed=5))
        variances.append(float(gates[0].var(0).mean()) / 0.3**2)
        first, second, *_ = torch.linalg.svdvals(gates[0] - gates[0].mean(0))
        ratios.append(float(second / first))
    assert 0.5 < sum(variances) / 5 < 2.5 and sum(ratios) / 5 > 0.4


@pytest.mark.parametrize("spread", [0, -1.0, float("nan"), float("inf"), "a", None])
def test_a_spread_that_is_none(spread):
    with pytest.raises(ValueError, match=f"spread must be a positive number, got {spread!r}"):
        make("SO(3)", spread=spread)


@pytest.mark.parametrize("attributes", [True, False])
@pytest.mark.parametrize("name", COMPACT)
def test_its_standard_deviation_is_one_on_other_edges_too(name, attributes):
    kernel = make(name, attributes)
    kernel.normalise()
    assert kernel(*edges(kernel, seed=9, many=4000)).std().item() == pytest.approx(1, rel=0.08)
    kernel.normalise(std=0.25)
    assert kernel(*edges(kernel, seed=9, many=4000)).std().item() == pytest.approx(0.25, rel=0.08)


@pytest.mark.parametrize("name", NAMES)
def test_on_the_edges_that_are_passed_it_is_one_exactly(name):
    kernel = make(name)
    vec, attr = 3 * randn(50, kernel.rep_in.group.d, seed=1), 5 + randn(50, kernel.edge_rep.size, seed=2)
    kernel.normalise(vec, attr)
    assert kernel(vec, attr).std().item() == pytest.approx(1, rel=1e-12)


def test_examples_of_edges_fill_the_ball():
    for name in ("octahedral", "skew SO(3)"):
        kernel = make(name)
        vec = kernel.embed.example(2000, torch.Generator().manual_seed(0))
        length = torch.einsum("ni,ij,nj->n", vec, torch.as_tensor(group(name).invariant_form), vec).sqrt()
        assert length.max() <= 2.0 + 1e-9
        assert length.mean().item() == pytest.approx(1.0, abs=0.05)


def test_it_is_the_same_every_time_and_leaves_global_randomness_alone():
    a, b = make("SO(3)"), make("SO(3)")
    before = torch.get_rng_state()
    assert a.normalise() == b.normalise()
    assert torch.equal(torch.get_rng_state(), before)
    assert a.normalise(generator=torch.Generator().manual_seed(1)) != b.normalise()


def test_it_is_saved_and_restored():
    saved, loaded = make("SO(3)"), make("SO(3)", seed=1)
    saved.normalise()
    state = copy.deepcopy(saved.state_dict())
    assert state["deviation"].item() == saved.deviation.item() != 1
    loaded.load_state_dict(state)
    torch.testing.assert_close(loaded(*edges(loaded, 3)), saved(*edges(saved, 3)), rtol=0, atol=0)
    saved.reset_parameters()
    assert saved.deviation.item() == 1


def test_every_contraction_is_normalised():
    g = group("octahedral")
    rep_in, rep_out = (2 * Scalar + V)(g), (Scalar + 2 * V)(g)
    pos, x = randn(20, 3), randn(20, rep_in.size, seed=1)
    graph = knn_graph(pos, 4)
    outs = []
    for contraction in ("kernel", "aggregate", "message", "auto"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            conv = PointConv(rep_in, rep_out, self_interaction=False, contraction=contraction).double()
        plain = conv(x, pos, graph)
        found = conv.kernel.normalise()
        outs.append(conv(x, pos, graph))
        torch.testing.assert_close(outs[-1], plain / found)
        torch.testing.assert_close(outs[-1], outs[0])


def test_messages_have_unit_variance():
    g = group("SO(3)")
    rep = (8 * Scalar + 8 * V)(g)
    kernel = ImplicitKernel(rep, rep).double()
    kernel.normalise(std=rep.size**-0.5)
    vec, _ = edges(kernel, seed=2, many=500)
    messages = torch.einsum("eoi,ei->eo", kernel(vec), randn(500, rep.size, seed=4))
    assert messages.square().mean().item() == pytest.approx(1, rel=0.15)


def test_edges_over_which_nothing_varies_are_refused():
    kernel = make("SO(3)")
    for vec in (torch.zeros(0, 3), torch.full((4, 3), torch.nan)):
        with pytest.raises(ValueError, match="standard deviation nan"):
            kernel.normalise(vec.double(), torch.zeros(len(vec), 4).double())
    assert kernel.deviation.item() == 1
