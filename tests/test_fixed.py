"""The fixed basis: steerable, complete by a count on paper, one function in every contraction, and a baseline."""

import numpy as np
import pytest
import torch
from oracles import act, closure, tolerance
from tables import COMPACT, FINITE, TABLE, condition, group
from test_conv import conv_error, derivatives, double, inputs, largest, randn

from emkernel import GraphBatch, RepError, Scalar, V, check_equivariance, groups, irreps, knn_graph
from emkernel.models import MoleculeNet, ParticleNet, ShapeNet, match_channels
from emkernel.nn import FixedKernel, ImplicitKernel, PointConv


def fields(g):
    return (2 * Scalar + V)(g), (Scalar + V + V.T)(g)


def weights(module):
    return sum(p.numel() for p in module.parameters())


# ---- steerable --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPACT)
def test_the_kernel_is_steerable_as_a_matrix(name):
    """k(g x) = ρ_out(g) k(x) ρ_in(g)^-1."""
    g = group(name)
    rep_in, rep_out = fields(g)
    for degree, rings in ((1, 1), (2, 3), *([(3, 2)] if g.d < 5 else [])):
        kernel = double(FixedKernel(rep_in, rep_out, degree=degree, rings=rings, cutoff=2.0))
        vec = randn(6, g.d)
        k = kernel(vec)
        assert k.shape == (6, rep_out.size, rep_in.size)
        assert k.abs().max() > 1e-3
        for a in g.sample(3, 2):
            left = kernel(act(V(g), a, vec))
            right = torch.as_tensor(rep_out.rho(a)) @ k @ torch.as_tensor(rep_in.rho(a.inverse))
            assert (left - right).abs().max() < 1e-10 * condition(name) ** 2 * max(1, right.abs().max())


@pytest.mark.parametrize("name", ["Th", "SO(3)", "2T", "SO(2) about z", "S5"])
def test_convolutions_are_equivariant(name):
    g = group(name)
    conv = double(PointConv(*fields(g), kernel="fixed", cutoff=2.0))
    for dtype in (torch.float64, torch.float32):
        assert conv_error(conv.to(dtype), g, "ragged", dtype=dtype) < tolerance(dtype)
    assert check_equivariance(conv).passed
    assert check_equivariance(conv.kernel).passed


def test_negative_control_a_basis_of_a_smaller_group_is_not_steerable():
    kernel = double(FixedKernel(V(group("SO(2) about z")), V(group("SO(2) about z")), cutoff=2.0))
    g, vec = group("SO(3)"), randn(6, 3)
    a = g.sample(1, 0)[0]
    turned = torch.as_tensor(a.matrix) @ kernel(vec) @ torch.as_tensor(a.matrix).T
    assert (kernel(act(V(g), a, vec)) - turned).abs().max() > 1e-2


# ---- complete ---------------------------------------------------------------------------------------------------


def span(kernel, points=400):
    """The dimension of all kernels, as functions at so many points."""
    vec = kernel.embed.example(points, torch.Generator().manual_seed(1))
    rows = []
    with torch.no_grad():
        for p in kernel.parameters():
            p.zero_()
        for p in kernel.parameters():
            for i in range(p.numel()):
                p.view(-1)[i] = 1
                rows.append(kernel(vec).flatten())
                p.view(-1)[i] = 0
    return int(torch.linalg.matrix_rank(torch.stack(rows), rtol=1e-7))


def harmonic_characters(elements, degree):
    """χ of H_l = Sym^l - Sym^(l-2) for l <= degree on each element, by Newton's identity for Sym."""
    powers = [np.eye(elements.shape[1])[None].repeat(len(elements), 0)]
    for _ in range(degree):
        powers.append(powers[-1] @ elements)
    traces = [np.trace(p, axis1=1, axis2=2) for p in powers]
    sym = [np.ones(len(elements))]
    for l in range(1, degree + 1):
        sym.append(sum(traces[k] * sym[l - k] for k in range(1, l + 1)) / l)
    return [s - (sym[l - 2] if l > 1 else 0) for l, s in enumerate(sym)]


@pytest.mark.parametrize(("degree", "rings"), [(1, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize("name", [n for n in FINITE if TABLE[n].order < 200 and group(n).d < 5])
def test_the_basis_of_a_finite_group_is_complete(name, degree, rings):
    """From V to V and a scalar it has the dimension that characters give: mean of χ_H χ_V(g^-1) (χ_V + 1)."""
    g = group(name)
    elements = closure(g.discrete_generators, g.d) if len(g.discrete_generators) else np.eye(g.d)[None]
    trace = np.trace(elements, axis1=1, axis2=2)
    count = sum((chi * trace * (trace + 1)).mean() for chi in harmonic_characters(elements, degree))
    try:
        kernel = FixedKernel(V(g), (V + Scalar)(g), degree=degree, rings=rings).double()
    except RepError:
        assert count == pytest.approx(0)
        return
    assert weights(kernel) == pytest.approx(rings * count)
    assert span(kernel) == weights(kernel)


@pytest.mark.parametrize(("name", "degree", "count"), [
    # maps between spins l and 1 of SO(3) to spin 1: one for l = 0, 1, 2; for O(3) the parity of l must be even
    ("SO(3)", 1, 2), ("SO(3)", 2, 3), ("SO(3)", 4, 3), ("O(3)", 1, 1), ("O(3)", 2, 2), ("O(3)", 4, 2),
    ("skew SO(3)", 2, 3),
    # V has weights -1, 0, 1 about z: 3, 7 maps to itself from weight 0 and V; H_2 adds weight 2 to V: 7 + 2
    ("SO(2) about z", 1, 10), ("SO(2) about z", 2, 19), ("SO(2) about z", 3, 28),
    # of the plane: weights 0, 1, 2, 3 to maps of weights 0, 0, ±2
    ("U(1)", 1, 2), ("U(1)", 2, 4), ("U(1)", 3, 4), ("O(2)", 1, 1), ("O(2)", 2, 2),
    # harmonics of R^4 are (l/2, l/2) of SU(2) x SU(2), V (1/2, 1/2): 1 from l = 0, and from 2
    ("SO(4)", 1, 1), ("SO(4)", 2, 2), ("SO(4)", 3, 2),
])  # fmt: skip
def test_the_basis_of_a_continuous_group_is_complete(name, degree, count):
    """From vectors to vectors, counted by hand."""
    g = group(name)
    for rings in (1, 3):
        kernel = FixedKernel(V(g), V(g), degree=degree, rings=rings).double()
        assert weights(kernel) == span(kernel) == rings * count


def test_rings_are_rings():
    """A scalar kernel of degree 1 under O(3) is a function of the radius; each ring peaks at its own."""
    g = group("O(3)")
    kernel = FixedKernel(Scalar(g), Scalar(g), degree=1, rings=4, cutoff=3.0).double()
    radius = torch.linspace(0, 4, 401, dtype=torch.float64)
    vec = radius[:, None] * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    with torch.no_grad():
        for r in range(4):
            kernel.weight[0].copy_(torch.eye(4, dtype=torch.float64)[r][:, None])
            assert radius[kernel(vec).argmax()].item() == pytest.approx(r, abs=0.05)


# ---- one function -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rings", [1, 3])
@pytest.mark.parametrize("contraction", ["aggregate", "message", "auto"])
@pytest.mark.parametrize("name", ["octahedral", "C4", "SO(2) about z", "2T"])
def test_contractions_are_one_function(name, contraction, rings):
    """Irreducibles come with different numbers of fields; value, gradient and second derivative."""
    g = group(name)
    options = {"kernel": "fixed", "rings": rings, "degree": 3, "cutoff": 2.0}
    reference = double(PointConv(*fields(g), contraction="kernel", **options))
    for chunk, graph in ((None, "ragged"), (3, "bipartite"), (2, "isolated nodes")):
        conv = PointConv(*fields(g), contraction=contraction, chunk=chunk, **options).double()
        conv.load_state_dict(reference.state_dict())
        args = inputs(g, reference.rep_in, None, graph)
        expected, found = derivatives(reference, g, args), derivatives(conv, g, args)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)
        for order in (1, 2):
            for a, b in zip(found[order], expected[order]):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * largest(b))


def test_fields_come_in_different_numbers():
    kernel = FixedKernel(V(group("SO(2) about z")), V(group("SO(2) about z")), degree=2, rings=3)
    assert len(set(kernel.widths)) > 1
    assert [3 * s for s in kernel.fields] == kernel.widths


def test_messages_have_unit_variance():
    g = group("SO(3)")
    rep = (8 * Scalar + 8 * V)(g)
    for rings in (3, 8):
        found = []
        for seed in range(4):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                kernel = FixedKernel(rep, rep, rings=rings).double()
            vec = kernel.embed.example(300, torch.Generator().manual_seed(seed))
            messages = torch.einsum("eoi,ei->eo", kernel(vec), randn(300, rep.size, seed=seed))
            found.append(messages.square().mean().item())
        assert np.mean(found) == pytest.approx(1, rel=0.3)


def test_it_is_normalised_saved_and_restored():
    g = group("octahedral")
    saved, loaded = (double(FixedKernel(*fields(g)), seed) for seed in (0, 1))
    saved.normalise()
    vec = saved.embed.example(1024, torch.Generator().manual_seed(0))
    assert saved(vec).std().item() == pytest.approx(1, rel=1e-9)
    loaded.load_state_dict(saved.state_dict())
    torch.testing.assert_close(loaded(vec), saved(vec), rtol=0, atol=0)


# ---- what is refused --------------------------------------------------------------------------------------------


def test_what_has_no_fixed_basis_is_refused():
    g = group("O(3)")
    with pytest.raises(RepError, match="edge_rep = 2Scalar.*implicit"):
        PointConv(V(g), V(g), (2 * Scalar)(g), kernel="fixed")
    with pytest.raises(RepError, match="edge_attr was passed"):
        FixedKernel(V(g), V(g))(torch.zeros(2, 3), torch.zeros(2, 1))
    for name in ("O(1,3)", "Borel"):
        with pytest.raises(RepError, match="not compact.*implicit"):
            FixedKernel(V(group(name)), V(group(name)))
    (det,) = [r for r in irreps(g, 3) if r.size == 1 and not r.is_trivial]
    with pytest.raises(RepError, match="no equivariant kernel .* degree up to 3"):
        FixedKernel(Scalar(g), det, degree=3)
    for argument, value in (("degree", 0), ("rings", 0), ("cutoff", -1.0)):
        with pytest.raises(ValueError, match=argument):
            FixedKernel(V(g), V(g), **{argument: value})
    with pytest.raises(ValueError, match="kernel must be one of .*got 'Fixed'"):
        PointConv(V(g), V(g), kernel="Fixed")
    with pytest.raises(ValueError, match="kernel must be one of .*got 'none'"):
        ParticleNet(g, kernel="none")


# ---- networks ---------------------------------------------------------------------------------------------------


def particles(clouds=2, many=5):
    n = clouds * many
    batch = torch.arange(clouds).repeat_interleave(many)
    pos = randn(n, 3)
    x = {"vel": randn(n, 3, seed=1), "charge": randn(n, 1, seed=2)}
    return GraphBatch(pos=pos, batch=batch, num_graphs=clouds, x=x, edge_index=knn_graph(pos, 3, batch))


def test_networks_switch_by_one_argument():
    g = group("O(3)")
    batch = particles()
    for kernel, kind in (("implicit", ImplicitKernel), ("fixed", FixedKernel)):
        net = ParticleNet(g, channels=3, layers=2, kernel=kernel).double()
        assert all(isinstance(block.conv.kernel, kind) for block in net.blocks)
        y = net(batch)
        a = g.sample(1, 0)[0]
        moved = GraphBatch(
            pos=act(V(g), a, batch.pos),
            batch=batch.batch,
            num_graphs=2,
            x={"vel": act(V(g), a, batch.x["vel"]), "charge": batch.x["charge"]},
            edge_index=batch.edge_index,
        )
        torch.testing.assert_close(net(moved), act(V(g), a, y))
        shapes = ShapeNet(
            g, 4, channels=(2, 3), points=(6, 4), neighbours=(3, 3), cutoffs=(1.0, 2.0), normals=False, kernel=kernel
        ).double()
        assert shapes(batch).shape == (2, 4)
        assert isinstance(shapes.blocks[0].conv.kernel, kind)
    molecules = MoleculeNet(g, channels=2, layers=1, kernel="fixed").double()
    chain = torch.tensor([[0, 1, 1, 2, 5, 6], [1, 0, 2, 1, 6, 5]])
    atoms = GraphBatch(
        pos=batch.pos, batch=batch.batch, num_graphs=2, x={"z": torch.arange(10) % 5}, edge_index=chain,
        edge_attr={"bond": torch.tensor([1, 1, 2, 2, 1, 1])},
    )  # fmt: skip
    assert molecules(atoms).shape == (2,)


@pytest.mark.parametrize("channels", [2, 5, 11])
def test_channels_are_matched(channels):
    g = groups.Oh()
    target = ParticleNet(g, channels=channels, layers=1)

    def build(c):
        return ParticleNet(g, channels=c, layers=1)

    assert match_channels(build, target) == match_channels(build, weights(target)) == channels
    other = match_channels(lambda c: ParticleNet(g, channels=c, layers=1, kernel="fixed"), target, tolerance=0.3)
    gap = [
        abs(weights(ParticleNet(g, channels=c, layers=1, kernel="fixed")) - weights(target))
        for c in (other - 1, other, other + 1)
        if c > 0
    ]
    assert min(gap) == gap[-2]


def test_channels_that_do_not_match_are_refused():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="no number of channels has 100 weights within 10%: 1 have"):
        match_channels(lambda c: torch.nn.Linear(1000, c), 100)
    with pytest.raises(ValueError, match="2 have 2002, 3 have 3003"):
        match_channels(lambda c: torch.nn.Linear(1000, c), 2500)
    assert torch.equal(torch.get_rng_state(), before)
