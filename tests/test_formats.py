"""Graphs in the formats of torch.sparse and PyTorch Geometric, and layers inside its pipelines."""

import pytest
import torch
from tables import group

from emkernel import Neighbours, RepError, Scalar, V, knn_graph
from emkernel.nn import Gate, Linear, PointConv
from emkernel.ops.formats import as_edges
from emkernel.testing import assert_equivariant

SMALL = {"width": 2, "hidden": 8, "layers": 1, "radial": 4, "cutoff": 3.0}
G = group("T")
REP_IN, REP_OUT = (2 * Scalar + V)(G), (Scalar + V)(G)
GRAPHS = {  # name -> (sources, targets, edges)
    "one set of nodes": (6, 6, [[0, 5, 1, 2, 3, 4, 0, 4], [1, 1, 2, 3, 4, 0, 3, 5]]),
    "isolated nodes": (6, 6, [[5, 1, 2], [1, 2, 1]]),
    "bipartite": (6, 3, [[3, 0, 1, 5, 4, 0], [2, 0, 0, 2, 2, 2]]),
    "no edges": (4, 4, [[], []]),
}
pytestmark = pytest.mark.filterwarnings("ignore:Converting sparse tensor", "ignore:There exist node types")
each_graph = pytest.mark.parametrize("graph", GRAPHS)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(edge_rep=None, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PointConv(REP_IN, REP_OUT, edge_rep, **SMALL).double()


def adjacency(edges, values, n, m):
    """Row target, column source, in the order of the edges and not coalesced."""
    size = (m, n, *values.shape[1:])
    return torch.sparse_coo_tensor(edges.flip(0), values, size, check_invariants=True)


def edge_index(edges, values, n, m):
    return pytest.importorskip("torch_geometric").EdgeIndex(edges, sparse_size=(n, m))


def edge_index_of_no_size(edges, values, n, m):
    return pytest.importorskip("torch_geometric").EdgeIndex(edges)


def sparse_tensor(edges, values, n, m):
    sparse = pytest.importorskip("torch_sparse")
    return sparse.SparseTensor(row=edges[1], col=edges[0], value=values, sparse_sizes=(m, n))


class ForeignSparseTensor:
    """What a SparseTensor of torch_sparse offers and is read."""

    def __init__(self, edges, values, n, m):
        order = torch.argsort(edges[1] * n + edges[0])
        self.entries, self.sizes = (edges[1][order], edges[0][order], values[order]), [m, n]

    def coo(self):
        return self.entries

    def sparse_sizes(self):
        return self.sizes


SPARSE = {
    "COO": lambda *given: adjacency(*given),
    "COO, coalesced": lambda *given: adjacency(*given).coalesce(),
    "CSR": lambda *given: adjacency(*given).to_sparse_csr(),
    "CSC": lambda *given: adjacency(*given).to_sparse_csc(),
    "CSR of int32": lambda *given: int32(adjacency(*given).to_sparse_csr()),
    "SparseTensor": sparse_tensor,
    "what a SparseTensor offers": ForeignSparseTensor,
}
FORMATS = {**SPARSE, "EdgeIndex": edge_index, "EdgeIndex of no size": edge_index_of_no_size}


def int32(adj):
    rows, columns = adj.crow_indices().int(), adj.col_indices().int()
    return torch.sparse_csr_tensor(rows, columns, adj.values(), adj.shape, check_invariants=True)


def inputs(graph):
    n, m, edges = GRAPHS[graph]
    x, pos = randn(n, REP_IN.size), randn(n, 3, seed=1)
    if n != m:
        x, pos = (x, randn(m, REP_IN.size, seed=2)), (pos, randn(m, 3, seed=3))
    return x, pos, torch.tensor(edges, dtype=torch.long), n, m


# ---- one graph, one result --------------------------------------------------------------------------------------


@each_graph
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(name, graph):
    x, pos, edges, n, m = inputs(graph)
    conv, given = make(), FORMATS[name](edges, torch.zeros(edges.shape[1]), n, m)
    expected = conv(x, pos, edges)
    torch.testing.assert_close(conv(x, pos, given), expected)
    for grouped in (True, False):
        torch.testing.assert_close(conv(x, pos, Neighbours.of(given, n, m, grouped=grouped)), expected)


@each_graph
@pytest.mark.parametrize("name", SPARSE)
def test_values_of_an_adjacency_are_attributes_where_none_are_passed(name, graph):
    x, pos, edges, n, m = inputs(graph)
    conv = make(Scalar(G))
    values = randn(edges.shape[1], seed=5)
    expected = conv(x, pos, edges, values[:, None])
    given = SPARSE[name](edges, values, n, m)
    torch.testing.assert_close(conv(x, pos, given), expected)
    if edges.shape[1]:
        assert (conv(x, pos, given, 2 * values[:, None]) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", [n for n in SPARSE if n != "COO"])
def test_values_of_an_adjacency_have_gradients(name):
    x, pos, edges, n, m = inputs("bipartite")
    conv, values = make(Scalar(G)), randn(edges.shape[1], seed=5).requires_grad_()
    given = SPARSE[name](edges, values, n, m)
    (left,) = torch.autograd.grad(conv(x, pos, given).square().sum(), values)
    (right,) = torch.autograd.grad(conv(x, pos, edges, values[:, None]).square().sum(), values)
    torch.testing.assert_close(left, right)
    assert left.abs().max() > 0


def test_gradients_that_torch_cannot_give_are_refused():
    x, pos, edges, n, m = inputs("bipartite")
    adj = adjacency(edges, randn(edges.shape[1]).requires_grad_(), n, m)
    with pytest.raises(ValueError, match=r"not coalesced and requires a gradient.*adj.coalesce\(\)"):
        make(Scalar(G))(x, pos, adj)


def test_values_may_be_vectors():
    x, pos, edges, n, m = inputs("one set of nodes")
    conv, values = make((Scalar + V)(G)), randn(edges.shape[1], 4, seed=5)
    torch.testing.assert_close(conv(x, pos, adjacency(edges, values, n, m)), conv(x, pos, edges, values))
    with pytest.raises(RepError, match="edge_attr has shape"):
        conv(x, pos, adjacency(edges, values[:, :3], n, m))


def test_an_entry_that_is_stored_twice_is_two_edges():
    x, pos, edges, n, m = inputs("one set of nodes")
    twice = torch.cat([edges, edges[:, :3]], 1)
    adj = adjacency(twice, torch.ones(twice.shape[1]), n, m)
    torch.testing.assert_close(make()(x, pos, adj), make()(x, pos, twice))
    assert not adj.is_coalesced()
    assert (make()(x, pos, adj) - make()(x, pos, edges)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["COO, coalesced", "CSR", "CSC"])
def test_attributes_are_in_the_order_of_torch_geometric(name):
    utils = pytest.importorskip("torch_geometric.utils")
    _, _, edges, n, m = inputs("bipartite")
    adj = SPARSE[name](edges, torch.arange(edges.shape[1]), n, m)
    (target, source), values = utils.to_edge_index(adj)
    found, found_values = as_edges(adj, n, m)
    assert torch.equal(found, torch.stack([source, target])) and torch.equal(found_values, values)


@pytest.mark.parametrize("layout", ["CSR", "COO"])
def test_an_adjacency_means_what_it_means_to_torch_geometric(layout):
    """adj_t is built and read by their code; the same sum over neighbours."""
    pyg = pytest.importorskip("torch_geometric")
    from torch_geometric.transforms import ToSparseTensor

    x, pos, edges, n, _ = inputs("one set of nodes")
    name = {"CSR": torch.sparse_csr, "COO": torch.sparse_coo}[layout]
    data = ToSparseTensor(layout=name)(pyg.data.Data(edge_index=edges, num_nodes=n))
    theirs = pyg.nn.SimpleConv()
    torch.testing.assert_close(theirs(x, data.adj_t.double()), theirs(x, edges))
    torch.testing.assert_close(make()(x, pos, data.adj_t), make()(x, pos, edges))
    assert (make()(x, pos, data.adj_t.t()) - make()(x, pos, edges)).abs().max() > 1e-3


# ---- what does not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "EdgeIndex of no size"])
def test_a_transposed_graph_is_named(name):
    x, pos, edges, n, m = inputs("bipartite")
    transposed = FORMATS[name](edges.flip(0), torch.ones(edges.shape[1]), m, n)
    wanted, repair = (r"6, 3", r"flip\(0\)") if name == "EdgeIndex" else ("6 x 3, .* = 3 x 6", r"t\(\)")
    with pytest.raises(ValueError, match=f"{wanted}.*it is transposed: pass its .{repair}"):
        make()(x, pos, transposed)


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "EdgeIndex of no size"])
def test_a_graph_of_other_nodes_is_named(name):
    x, pos, edges, n, m = inputs("one set of nodes")
    other = FORMATS[name](edges, torch.ones(edges.shape[1]), n + 1, m + 1)
    with pytest.raises(ValueError, match=r"7.*expected.* 6.*the graph of other nodes"):
        make()(x, pos, other)


@pytest.mark.parametrize("given", [
    torch.zeros(6, 6), torch.zeros(2, 6, 6).to_sparse(), torch.zeros(6, 6).to_sparse_bsr((2, 2)),
    torch.zeros(2, 6, 6).to_sparse_csr(), None, [[0], [1]],
], ids=["dense", "COO of three", "BSR", "batch of CSR", "None", "list"])  # fmt: skip
def test_other_things_are_refused_and_the_formats_listed(given):
    x, pos, *_ = inputs("one set of nodes")
    with pytest.raises(ValueError, match="EdgeIndex of torch_geometric, or a sparse adjacency"):
        make()(x, pos, given)


# ---- beside the layers of PyTorch Geometric ---------------------------------------------------------------------


def network():
    """An invariant of each cloud, with layers and pooling of theirs behind ours."""
    pyg = pytest.importorskip("torch_geometric.nn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return pyg.Sequential("x, pos, edge_index, batch", [
            (make(), "x, pos, edge_index -> x"), Gate(REP_OUT), (Linear(REP_OUT, (3 * Scalar)(G)), "x -> x"),
            (pyg.GCNConv(3, 4), "x, edge_index -> x"), torch.nn.ReLU(), (pyg.global_mean_pool, "x, batch -> x"),
            torch.nn.Linear(4, 2),
        ]).double()  # fmt: skip


def cloud(n, seed, form="plain"):
    pyg = pytest.importorskip("torch_geometric")
    pos = randn(n, 3, seed=seed)
    edges = knn_graph(pos, 3)
    data = pyg.data.Data(x=randn(n, REP_IN.size, seed=seed + 100), pos=pos, edge_index=edges)
    if form == "EdgeIndex":
        data.edge_index = pyg.EdgeIndex(edges, sparse_size=(n, n))
    if form == "adj_t":
        values = torch.ones(edges.shape[1], dtype=torch.float64)
        data.adj_t = adjacency(edges, values, n, n).to_sparse_csr()
        del data.edge_index
    return data


class Clouds(torch.utils.data.Dataset):
    """Clouds whose graphs are made where they are loaded."""

    def __init__(self, form):
        self.form = form

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return cloud(5 + i, i, self.form)


FORMS = ["plain", "EdgeIndex", "adj_t"]


@pytest.fixture(scope="module")
def one_by_one():
    """The network on each cloud alone."""
    model = network()
    clouds = [cloud(5 + i, i) for i in range(4)]
    return torch.cat([model(c.x, c.pos, c.edge_index, None) for c in clouds]).detach()


@pytest.mark.parametrize("form", FORMS)
def test_batches_of_torch_geometric_are_accepted(one_by_one, form):
    pyg = pytest.importorskip("torch_geometric")
    batch = pyg.data.Batch.from_data_list([cloud(5 + i, i, form) for i in range(4)])
    graph = batch.adj_t if form == "adj_t" else batch.edge_index
    torch.testing.assert_close(network()(batch.x, batch.pos, graph, batch.batch), one_by_one)


@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_hand_over_graphs(one_by_one, form, context):
    pytest.importorskip("torch_geometric")
    import multiprocessing

    from torch_geometric.loader import DataLoader

    if context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} on this system")
    loader = DataLoader(Clouds(form), batch_size=2, num_workers=1, multiprocessing_context=context)
    model = network()
    found = [model(b.x, b.pos, b.adj_t if form == "adj_t" else b.edge_index, b.batch) for b in loader]
    torch.testing.assert_close(torch.cat(found), one_by_one)


def test_a_pipeline_with_their_layers_is_invariant():
    model, data = network(), cloud(8, 1)
    batch = torch.zeros(8, dtype=torch.long)
    assert_equivariant(
        lambda x, pos: model(x, pos, data.edge_index, batch), [data.x, data.pos], [REP_IN, V(G)], (2 * Scalar)(G)
    )


def test_their_pipeline_resets_our_weights():
    model = network()
    before = model.state_dict()["module_0.kernel.weight.0"].clone()
    model.reset_parameters()
    assert not torch.equal(model.state_dict()["module_0.kernel.weight.0"], before)


def test_several_kinds_of_nodes():
    """HeteroConv passes a (source, target) pair between two kinds, and one tensor within one."""
    pyg = pytest.importorskip("torch_geometric.nn")
    (xs, xt), (ps, pt), edges, _, m = inputs("bipartite")
    within = torch.tensor([[0, 1], [1, 2]])
    between, inner = make(seed=1), make(seed=2)
    hetero = pyg.HeteroConv({("a", "to", "b"): between, ("b", "to", "b"): inner}, aggr="sum")
    found = hetero({"a": xs, "b": xt}, {"a": ps, "b": pt}, {("a", "to", "b"): edges, ("b", "to", "b"): within})
    torch.testing.assert_close(found["b"], between((xs, xt), (ps, pt), edges) + inner(xt, pt, within))
    assert found["b"].shape == (m, REP_OUT.size)
