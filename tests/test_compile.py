"""torch.compile without graph breaks and for any size: the layer and the reference networks equal themselves."""

import os
import shutil

import pytest
import torch

import emkernel as ek
from emkernel import GraphBatch, Neighbours, Scalar, V
from emkernel.models import MoleculeNet, ParticleNet, ShapeNet, harmonic_rep

G = ek.groups.O(3)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randint(high, *shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def agree(module, calls, backend="aot_eager"):
    """Value and gradients of the compiled module are those of the module, one compilation for all calls."""
    if backend == "inductor" and not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("inductor needs a C++ compiler")
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=backend)
    parameters = [p for p in module.parameters() if p.requires_grad]
    for args in calls:
        leaves = [x.requires_grad_() for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()]
        outs = [f(*args) for f in (module, compiled)]
        torch.testing.assert_close(outs[1], outs[0], rtol=1e-4, atol=1e-5)
        # along a random direction, as some layers keep the norm
        along, wanted = randn(*outs[0].shape, seed=9), leaves + parameters
        first, second = (torch.autograd.grad((out * along).sum(), wanted, allow_unused=True) for out in outs)
        assert any(a is not None for a in first)
        for a, b in zip(first, second):
            if a is not None:
                torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4 * max(1.0, a.abs().max().item()))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def small_conv(**options):
    rep_in, rep_out = (2 * Scalar + V)(G), (2 * Scalar + 2 * V)(G)
    return ek.nn.PointConv(rep_in, rep_out, (2 * Scalar)(G), cutoff=2.0, width=3, hidden=8, **options)


def inputs(nodes, edges):
    return randn(nodes, 5), randn(nodes, 3, seed=1), randint(nodes, 2, edges), randn(edges, 2, seed=2)


def test_layer_with_edges_as_they_come():
    agree(small_conv(), [inputs(20, 100), inputs(31, 77)])


def test_layer_with_a_prepared_graph():
    calls = []
    for nodes in (12, 25):
        x, pos, _, _ = inputs(nodes, 1)
        edges = ek.knn_graph(pos, 4)
        calls.append((x, pos, Neighbours.of(edges, nodes), randn(edges.shape[1], 2, seed=2)))
    agree(small_conv(), calls)


def test_layer_with_an_envelope():
    agree(small_conv(envelope=True), [inputs(20, 100), inputs(31, 77)])


SPINS = harmonic_rep(G, 3, 2)


@pytest.mark.parametrize("rep", [(2 * Scalar + 2 * V)(G), SPINS, (2 * V)(G)], ids=str)
def test_a_gate_through_inductor(rep):
    """It must not overwrite what is still to be read: gradients, by the input too, of one split and of several."""
    agree(ek.nn.Gate(rep), [(randn(20, rep.size),), (randn(31, rep.size),)], backend="inductor")


@pytest.mark.slow
def test_layer_through_inductor():
    agree(small_conv(), [inputs(20, 100), inputs(31, 77)], backend="inductor")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: ek.nn.Linear(SPINS, (2 * Scalar + V)(G)),
        lambda: ek.nn.Bilinear(SPINS, SPINS, SPINS, 2),
        lambda: ek.nn.EMLP(SPINS, (2 * Scalar + V)(G)),
        lambda: ek.nn.Invariants(SPINS),
        lambda: ek.nn.OrbitELU(SPINS, samples=30),
        lambda: ek.nn.BatchNorm(SPINS),
        lambda: ek.nn.BatchNorm(SPINS).eval(),
        lambda: ek.nn.ImplicitKernel(SPINS, SPINS, width=3, hidden=8),
        lambda: ek.nn.FixedKernel(SPINS, SPINS),
        lambda: ek.models.SteerableBlock(SPINS, SPINS, cutoff=2.0, width=3, hidden=8),
        lambda: ek.models.SteerableBlock(SPINS, SPINS, cutoff=2.0, kernel="fixed", nonlinearity=ek.nn.OrbitELU),
    ],
    ids=lambda make: "",
)
def test_every_layer(make, backend):
    module = make()
    # inductor compiles products with fewer than thirty rows anew
    if isinstance(module, ek.models.SteerableBlock):
        calls = [(randn(n, SPINS.size), randn(n, 3, seed=1), randint(n, 2, 5 * n)) for n in (40, 61)]
    else:
        sizes = [3] if hasattr(module, "hidden_irreps") else [SPINS.size] * (1 + isinstance(module, ek.nn.Bilinear))
        calls = [tuple(randn(n, size, seed=i) for i, size in enumerate(sizes)) for n in (40, 61)]
    agree(module, calls, backend)


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 3])
def test_two_layers_with_a_gate_through_inductor(width):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            options = {"cutoff": 2.0, "width": width, "hidden": 8}
            self.layers = torch.nn.ModuleList([ek.nn.PointConv(SPINS, SPINS, **options) for _ in range(2)])
            self.gates = torch.nn.ModuleList([ek.nn.Gate(SPINS) for _ in range(2)])

        def forward(self, x, pos, edge_index):
            for layer, gate in zip(self.layers, self.gates):
                x = gate(layer(x, pos, edge_index))
            return x

    calls = [(randn(n, SPINS.size), randn(n, 3, seed=1), randint(n, 2, 5 * n)) for n in (20, 31)]
    agree(Two(), calls, "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_molecules(backend):
    def molecules(count, atoms):
        nodes, edges = count * atoms, 3 * count * atoms
        start = torch.arange(count).repeat_interleave(3 * atoms) * atoms
        return (
            GraphBatch(
                randn(nodes, 3),
                torch.arange(count).repeat_interleave(atoms),
                count,
                x={"z": randint(5, nodes)},
                edge_index=randint(atoms, 2, edges, seed=1) + start,
                edge_attr={"bond": randint(5, edges, seed=2)},
            ),
        )

    agree(MoleculeNet(G, channels=3, layers=2).eval(), [molecules(3, 7), molecules(5, 9)], backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_particles(backend):
    def particles(count):
        nodes = 5 * count
        pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5)).T
        edges = torch.cat([pairs[:, pairs[0] != pairs[1]] + 5 * k for k in range(count)], 1)
        x = {"vel": randn(nodes, 3, seed=1), "charge": randn(nodes, 1, seed=2)}
        return (GraphBatch(randn(nodes, 3), torch.arange(count).repeat_interleave(5), count, x=x, edge_index=edges),)

    # inductor compiles products with fewer than thirty rows anew
    agree(ParticleNet(G, channels=3, layers=2).eval(), [particles(7), particles(13)], backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_shapes_with_their_graphs_prepared(backend):
    net = ShapeNet(G, 6, channels=(3, 3), points=(24, 10), neighbours=(6, 5), cutoffs=(0.5, 1.0)).eval()

    def shapes(count, points):
        pos = torch.nn.functional.normalize(randn(count * points, 3))
        batch = GraphBatch(pos, torch.arange(count).repeat_interleave(points), count, x={"normal": pos})
        return batch, net.graphs(batch)

    # sizes that are equal by chance would be taken to be equal always
    agree(net, [shapes(3, 47), shapes(4, 61)], backend)
