"""An envelope takes kernels to zero at the cutoff: energies and forces are continuous where edges come and go."""

import numpy as np
import pytest
import torch
from oracles import act, tolerance, without_settings
from tables import condition, group
from test_conv import conv_error, derivatives, double, inputs, largest, randn
from test_invariants import make

from emkernel import GraphBatch, RepError, Scalar, V, interval_graph, invariant_forms, radius_graph
from emkernel.models import MoleculeNet
from emkernel.nn import FixedKernel, Gate, ImplicitKernel, PointConv

CUTOFF = 1.5
KERNELS = {
    "implicit": (ImplicitKernel, {"width": 2, "hidden": 8, "layers": 1, "radial": 4, "cutoff": CUTOFF}),
    "fixed": (FixedKernel, {"rings": 3, "cutoff": CUTOFF}),
}
each_kernel = pytest.mark.parametrize("kind", KERNELS)
MINKOWSKI = np.diag([1.0, -1.0, -1.0, -1.0])


def fields(g):
    return (2 * Scalar + V)(g), (Scalar + V)(g)


def pair(kind, g, edge_rep=None):
    """The kernel without and with the envelope, of equal weights."""
    make, options = KERNELS[kind]
    kernels = [double(make(*fields(g), edge_rep, envelope=e, **options)) for e in (False, True)]
    kernels[1].load_state_dict(without_settings(kernels[0]))
    return kernels


def smooth_step(s):
    """1 - 10 s³ + 15 s⁴ - 6 s⁵ for s < 1, the quintic whose first two derivatives vanish at both ends; 0 beyond."""
    return torch.where(s < 1, 1 - 10 * s**3 + 15 * s**4 - 6 * s**5, torch.zeros_like(s))


# ---- what it is -------------------------------------------------------------------------------------------------


@each_kernel
@pytest.mark.parametrize("name", ["SO(3)", "D7", "S5", "SO(2) about z", "skew D7", "SU(2)", "trivial"])
def test_the_kernel_is_multiplied_by_a_function_of_the_invariant_length(name, kind):
    g = group(name)
    plain, cut = pair(kind, g)
    vec = randn(200, g.d)
    square = torch.einsum("ni,ij,nj->n", vec, torch.as_tensor(g.invariant_form), vec) / CUTOFF**2
    assert (square < 1).any() and (square > 1).any()
    wanted = smooth_step(square)[:, None, None] * plain(vec)
    torch.testing.assert_close(cut(vec), wanted, rtol=1e-9, atol=1e-12 * condition(name) ** 2)
    assert cut(vec)[square >= 1 + 1e-9].abs().max() == 0


def test_under_lorentz_it_vanishes_where_the_interval_reaches_the_cutoff():
    g = group("O(1,3)")
    plain, cut = pair("implicit", g, Scalar(g))
    vec, attr = randn(300, 4), randn(300, 1, seed=1)
    interval = torch.einsum("ni,ij,nj->n", vec, torch.as_tensor(MINKOWSKI), vec) / CUTOFF**2
    assert (interval.abs() < 1).sum() > 50 and (interval > 1).any() and (interval < -1).any()
    torch.testing.assert_close(cut(vec, attr), smooth_step(interval**2)[:, None, None] * plain(vec, attr))


def test_several_invariants_cut_one_after_another():
    """Under O(3) x O(1,1) neither a long vector of space nor a long interval is seen."""
    g = make("O(3) x O(1,1)")
    _, cut = pair("implicit", g)
    vec = torch.zeros(4, 5, dtype=torch.float64)
    vec[0, 0], vec[1, 0], vec[1, 3], vec[2, 3], vec[3, :] = 0.4, 0.4, 2.0, 2.0, 2.0
    size = cut(vec).flatten(1).abs().amax(1)
    assert size[0] > 1e-3
    assert size[1:].max() == 0


@pytest.mark.parametrize("name", ["Sp(4)", "GL(2)"])
def test_without_an_invariant_of_the_edge_there_is_no_envelope(name):
    g = make(name)
    assert not len(invariant_forms(V(g)).symmetric)
    with pytest.raises(RepError, match="no polynomial of degree up to 2 .* invariant under .* leave envelope=False"):
        PointConv(V(g), V(g), envelope=True)


@pytest.mark.parametrize("aggr", ["mean", "max"])
def test_a_mean_would_jump_all_the_same(aggr):
    g = group("SO(3)")
    with pytest.raises(ValueError, match=f"aggr='{aggr}' jumps .* use aggr='sum'"):
        PointConv(V(g), Scalar(g), envelope=True, aggr=aggr)


# ---- in the convolution -----------------------------------------------------------------------------------------


@each_kernel
@pytest.mark.parametrize("contraction", ["aggregate", "message", "auto"])
def test_contractions_are_one_function(kind, contraction):
    g = group("octahedral")
    edge_rep = (Scalar + V)(g) if kind == "implicit" else None
    options = {"kernel": kind, "envelope": True, **KERNELS[kind][1]}
    reference = double(PointConv(*fields(g), edge_rep, contraction="kernel", **options))
    for chunk, graph in ((None, "ragged"), (2, "isolated nodes")):
        conv = double(PointConv(*fields(g), edge_rep, contraction=contraction, chunk=chunk, **options))
        conv.load_state_dict(reference.state_dict())
        args = inputs(g, conv.rep_in, edge_rep, graph)
        expected, found = (derivatives(c, g, args) for c in (reference, conv))
        torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)
        for order in (1, 2):
            for a, b in zip(found[order], expected[order]):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * largest(b))


@pytest.mark.parametrize(("name", "kind"), [
    ("octahedral", "fixed"), ("SO(3)", "implicit"), ("skew D7", "implicit"), ("O(1,3)", "implicit"),
    ("Galilei", "implicit"), ("shear", "implicit"),
])  # fmt: skip
def test_convolutions_stay_equivariant(name, kind):
    g = make(name)
    conv = double(PointConv(*fields(g), kernel=kind, envelope=True, **KERNELS[kind][1]))
    for dtype in (torch.float64, torch.float32):
        assert conv_error(conv.to(dtype), g, "ragged", dtype=dtype) < tolerance(dtype, condition(name))


def test_far_away_the_derivatives_are_zero_and_not_nan():
    for name in ("SO(3)", "O(1,3)"):
        g = group(name)
        _, cut = pair("implicit", g)
        vec = torch.cat([torch.zeros(1, g.d), 1e8 * randn(5, g.d, dtype=torch.float32)]).requires_grad_()
        cut.float()(vec).square().sum().backward()
        assert vec.grad.isfinite().all()
        assert vec.grad[1:].abs().max() == 0


# ---- what it is for ---------------------------------------------------------------------------------------------


class Energy(torch.nn.Module):
    """Two convolutions on the graph of a radius, built anew for each position."""

    def __init__(self, g, kind, graph, envelope):
        super().__init__()
        options = {"kernel": kind, "envelope": envelope, **KERNELS[kind][1]}
        mid = (2 * Scalar + V)(g)
        self.graph = graph
        self.first, self.gate = PointConv(Scalar(g), mid, **options), Gate(mid)
        self.second = PointConv(mid, Scalar(g), **options)

    def forward(self, pos):
        edges = self.graph(pos)
        x = self.first(torch.ones(len(pos), 1, dtype=pos.dtype), pos, edges)
        return self.second(self.gate(x), pos, edges).sum()


def crossing(energy, pos, along, length):
    """Jumps of energy, slope and curvature as point 0 leaves the neighbourhood of point 1, relative to how much they
    change on its way there."""
    at = torch.linspace(length - 0.2, length, 5, dtype=torch.float64)
    sides, h = [], 1e-7
    for t in (*at[:-1], at[-1] - h, at[-1] + h):
        t = t.clone().requires_grad_()
        moved = torch.cat([(pos[1] + t * along)[None], pos[1:]])
        value = energy(moved)
        (slope,) = torch.autograd.grad(value, t, create_graph=True)
        (bend,) = torch.autograd.grad(slope, t)
        sides.append(torch.stack([value.detach(), slope.detach(), bend]))
    change = torch.stack(sides[:-2]).diff(dim=0).abs().amax(0)
    return (sides[-1] - sides[-2]).abs() / change


def euclidean(pos):
    return radius_graph(pos, CUTOFF)


def lorentzian(pos):
    return interval_graph(pos, CUTOFF, torch.as_tensor(MINKOWSKI))


@pytest.mark.parametrize(("name", "kind", "graph", "along"), [
    ("O(3)", "implicit", euclidean, [0.6, 0.0, 0.8]), ("O(3)", "fixed", euclidean, [0.6, 0.0, 0.8]),
    ("O(1,3)", "implicit", lorentzian, [1.0, 0.0, 0.0, 0.0]),
    ("O(1,3)", "implicit", lorentzian, [0.75, 1.25, 0.0, 0.0]),
])  # fmt: skip
def test_energy_forces_and_their_slopes_are_continuous_where_an_edge_appears(name, kind, graph, along):
    """Two points leave each other's neighbourhood; without an envelope, all three jump there."""
    g, along = group(name), torch.tensor(along, dtype=torch.float64)
    pos = 0.5 * randn(6, g.d, seed=4)
    before, after = (graph(torch.cat([(pos[1] + t * along)[None], pos[1:]])) for t in (CUTOFF - 1e-7, CUTOFF + 1e-7))
    assert before.shape[1] == after.shape[1] + 2
    jumps = {e: crossing(double(Energy(g, kind, graph, e)), pos, along, CUTOFF) for e in (False, True)}
    assert jumps[True].max() < 1e-4
    assert jumps[False].min() > 1e-2


def test_a_network_takes_it_and_its_energy_is_continuous():
    g = group("O(3)")
    pos = torch.tensor([[0.0, 0, 0], [1.0, 0.2, 0], [0.3, 1.1, 0.4]], dtype=torch.float64)
    jumps = {}
    for envelope in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = MoleculeNet(
                g, target="sum", channels=2, layers=2, radius=CUTOFF, envelope=envelope, hidden=8
            ).double()
        values = []
        for x in (CUTOFF - 1e-9, CUTOFF + 1e-9):
            pos[1] = torch.tensor([x, 0, 0], dtype=torch.float64)
            batch = GraphBatch(
                pos.clone(),
                torch.zeros(3, dtype=torch.long),
                1,
                x={"z": torch.tensor([0, 1, 2])},
                edge_index=torch.tensor([[0, 2], [2, 0]]),
                edge_attr={"bond": torch.tensor([1, 1])},
            )
            values.append(net(batch).item())
        jumps[envelope] = abs(values[1] - values[0])
    assert jumps[True] < 1e-7
    assert jumps[False] > 1e-4


def test_turned_points_have_turned_forces():
    g = group("O(3)")
    energy, pos = double(Energy(g, "implicit", euclidean, True)), randn(8, 3)
    (force,) = torch.autograd.grad(energy(pos.requires_grad_()), pos)
    for a in g.sample(3, 0):
        moved = act(V(g), a, pos.detach()).requires_grad_()
        torch.testing.assert_close(
            torch.autograd.grad(energy(moved), moved)[0], act(V(g), a, force), rtol=1e-9, atol=1e-10
        )
