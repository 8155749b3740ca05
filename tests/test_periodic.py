"""Graphs of crystals, and the network for them: against sums over images, and under all that leaves a crystal alone."""

import itertools

import numpy as np
import pytest
import torch

import emkernel as ek
from emkernel import Scalar, V
from emkernel.batch import GraphBatch
from emkernel.data import load_dielectric
from emkernel.errors import DataError
from emkernel.graph import periodic_graph
from emkernel.models import CrystalNet
from emkernel.nn import PointConv
from emkernel.train import TASKS, RunConfig, matrix_log, train

CUBE = torch.eye(3, dtype=torch.float64)
SKEW = torch.tensor([[2.0, 0.1, -0.3], [1.7, 1.1, 0.2], [-0.9, 0.4, 1.5]], dtype=torch.float64)
FLAT = torch.tensor([[0.9, 0.0, 0.0], [0.2, 5.0, 0.0], [0.0, 1.0, 7.0]], dtype=torch.float64)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_images(pos, cell, r, loop=False, reach=9):
    """(source, target, vector) of all edges, looked for among all images with coordinates up to ``reach``."""
    found = []
    for n in itertools.product(range(-reach, reach + 1), repeat=len(cell)):
        vec = pos[:, None] - pos[None] - torch.tensor(n, dtype=pos.dtype) @ cell
        near = vec.norm(dim=2) <= r
        if not any(n) and not loop:
            near.fill_diagonal_(False)
        i, j = near.nonzero(as_tuple=True)
        found.append(torch.cat([j[:, None], i[:, None], vec[i, j]], 1))
    return sorted_rows(torch.cat(found))


def sorted_rows(rows):
    rows = (rows * 1e6).round() / 1e6 + 0.0
    return rows[np.lexsort(rows.numpy().T[::-1])]


def edges(pos, cell, r, batch=None, **options):
    index, vec = periodic_graph(pos, cell, r, batch, **options)
    return sorted_rows(torch.cat([index.T, vec], 1))


def surroundings(pos, cell, r, batch=None, **options):
    """Of each point its vectors, in an order of their own."""
    index, vec = periodic_graph(pos, cell, r, batch, **options)
    return [sorted_rows(vec[index[1] == i]) for i in range(len(pos))]


# ---- the graph --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [CUBE, SKEW, FLAT, 3 * SKEW], ids=["cube", "skew", "flat", "wide"])
@pytest.mark.parametrize("loop", [False, True])
def test_all_images_within_the_radius(cell, loop):
    pos = randn(4, 3) @ cell * 0.4
    found = edges(pos, cell, 2.05, loop=loop)
    wanted = by_images(pos, cell, 2.05, loop)
    assert len(found) >= 10 and torch.equal(found, wanted)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_in_any_dimension(d):
    cell = torch.eye(d, dtype=torch.float64) + 0.2 * randn(d, d, seed=d)
    pos = randn(3, d, seed=d)
    assert torch.equal(edges(pos, cell, 1.3), by_images(pos, cell, 1.3, reach=6))


@pytest.mark.parametrize(("r", "shells"), [(1.0, 6), (1.42, 18), (1.8, 26), (2.0, 32), (3.0, 122)])
def test_shells_of_a_cubic_lattice(r, shells):
    """The numbers of whole vectors of length up to r; at 1, 2 and 3 the boundary is met to rounding."""
    turn = torch.linalg.qr(randn(3, 3))[0]
    for lattice in (CUBE, CUBE @ turn, (CUBE @ turn).float()):
        index, vec = periodic_graph(torch.zeros(1, 3, dtype=lattice.dtype), lattice, r)
        assert index.tolist() == [[0] * shells] * 2 and vec.dtype == lattice.dtype
        assert float(vec.norm(dim=1).max()) <= r * 1.0001


def test_several_crystals_in_any_order_are_each_by_itself():
    pos, cells = randn(7, 3), torch.stack([CUBE, SKEW, FLAT])
    batch = torch.tensor([2, 0, 1, 1, 0, 2, 1])
    index, vec = periodic_graph(pos, cells, 1.5, batch)
    assert torch.equal(batch[index[0]], batch[index[1]]) and index[1].diff().min() >= 0
    for c in range(3):
        mine = (batch == c).nonzero()[:, 0]
        here = batch[index[1]] == c
        part = torch.cat([torch.searchsorted(mine, index[:, here]).T, vec[here]], 1)
        assert torch.equal(sorted_rows(part), edges(pos[mine], cells[c], 1.5))


def test_edges_are_sorted_by_target_then_by_distance():
    index, vec = periodic_graph(randn(5, 3), SKEW, 2.0)
    length = vec.norm(dim=1)
    assert all((length[index[1] == i].diff() > -1e-12).all() for i in range(5)) and (index[1].diff() >= 0).all()


def test_what_describes_the_same_crystal_has_the_same_graph():
    pos = randn(3, 3)
    around = surroundings(pos, SKEW, 1.9)
    # other vectors of the same lattice
    other = torch.tensor([[1.0, 1, 0], [0, 1, 2], [1, 1, 1]], dtype=torch.float64)
    assert abs(torch.linalg.det(other)) == 1
    for cell in (other @ SKEW, -SKEW, SKEW[[2, 0, 1]]):
        assert all(map(torch.equal, surroundings(pos, cell, 1.9), around))
    # atoms in other cells, and another origin
    moved = pos + torch.tensor([[3.0, -2, 0], [0, 0, 0], [-40, 1, 7]], dtype=torch.float64) @ SKEW + 0.37
    assert all(map(torch.equal, surroundings(moved, SKEW, 1.9), around))
    # two by one by three cells as one
    shifts = torch.tensor(list(itertools.product(range(2), range(1), range(3))), dtype=torch.float64) @ SKEW
    many = (pos[None] + shifts[:, None]).reshape(-1, 3)
    cell = torch.diag(torch.tensor([2.0, 1, 3], dtype=torch.float64)) @ SKEW
    for i, found in enumerate(surroundings(many, cell, 1.9)):
        assert torch.equal(found, around[i % 3])
    # a rotation turns it
    turn = torch.linalg.qr(randn(3, 3, seed=4))[0]
    for a, b in zip(around, surroundings(pos @ turn.T, SKEW @ turn.T, 1.9)):
        torch.testing.assert_close(sorted_rows(a @ turn.T), b, rtol=0, atol=1e-5)


def test_the_nearest_with_all_that_are_as_near():
    zero = torch.zeros(1, 3, dtype=torch.float64)
    turn = torch.linalg.qr(randn(3, 3))[0]
    for k, kept in ((1, 6), (6, 6), (7, 18), (18, 18), (19, 26), (500, 122)):
        assert periodic_graph(zero, CUBE @ turn, 3.0, k=k)[0].shape[1] == kept
        assert periodic_graph(zero.float(), (CUBE @ turn).float(), 3.0, k=k)[0].shape[1] == kept
        assert periodic_graph(zero, CUBE @ turn, 3.0, k=k, loop=True)[0].shape[1] == kept + 1
    pos = randn(4, 3)
    index, vec = periodic_graph(pos, SKEW, 2.0)
    found = edges(pos, SKEW, 2.0, k=5)
    assert torch.equal(found[:, 1].long().bincount(), torch.full((4,), 5))
    for i in range(4):
        nearest = vec[index[1] == i].norm(dim=1).sort().values[:5]
        torch.testing.assert_close(found[found[:, 1] == i][:, 2:].norm(dim=1).sort().values, nearest, atol=1e-5, rtol=0)


def test_distances_in_a_metric():
    """Of a lattice in its own coordinates, whose Gram matrix is the metric."""
    pos, gram = randn(3, 3), SKEW @ SKEW.T
    index, vec = periodic_graph(pos, CUBE, 1.9, metric=gram)
    found = sorted_rows(torch.cat([index.T, vec @ SKEW], 1))
    torch.testing.assert_close(found, edges(pos @ SKEW, SKEW, 1.9), rtol=0, atol=1e-5)


def test_vectors_have_derivatives_by_positions_and_cell():
    pos, cell = randn(3, 3).requires_grad_(), SKEW.clone().requires_grad_()
    weights = randn(3, 3)

    def bonds(p, c):
        index, vec = periodic_graph(p, c, 1.5)
        return (weights[index[0], index[1], None] * torch.exp(-vec.square().sum(1, keepdim=True)) * vec.square()).sum(0)

    assert torch.autograd.gradcheck(bonds, (pos, cell))


def test_half_precision_leaves_the_graph_alone():
    pos, cell = randn(3, 3, dtype=torch.float32), SKEW.float()
    index, vec = periodic_graph(pos, cell, 1.9)
    with torch.autocast("cpu", torch.bfloat16):
        again = periodic_graph(pos, cell, 1.9)
        y = torch.eye(3).expand(2, 3, 3) * torch.tensor([2.0, 3.003])[:, None, None]
        torch.testing.assert_close(torch.matrix_exp(matrix_log(y).double()).float(), y)
    assert torch.equal(again[0], index) and torch.equal(again[1], vec)


def test_empty_and_far():
    index, vec = periodic_graph(torch.zeros(0, 3), torch.eye(3), 1.0)
    assert index.shape == (2, 0) and vec.shape == (0, 3)
    index, vec = periodic_graph(torch.zeros(2, 3), 100 * torch.eye(3), 1.0)
    assert index.tolist() == [[1, 0], [0, 1]] and not vec.any()
    assert periodic_graph(torch.zeros(1, 3), 100 * torch.eye(3), 1.0, k=3)[0].shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: periodic_graph(torch.zeros(1, 3), torch.eye(3), 0.0), "r is 0"),
        (lambda: periodic_graph(torch.zeros(1, 3), torch.eye(3), 1.0, k=0), "k is 0"),
        (lambda: periodic_graph(torch.zeros(1, 3), torch.eye(2), 1.0), r"shape \(2, 2\), expected \(1, 3, 3\)"),
        (lambda: periodic_graph(torch.zeros(1, 3), torch.eye(3).double(), 1.0), "float64.*expected.*float32"),
        (lambda: periodic_graph(torch.zeros(1, 3), np.eye(3), 1.0), "ndarray"),
        (lambda: periodic_graph(torch.zeros(1, 3), torch.zeros(3, 3), 1.0), r"cell\[0\] has no volume"),
        (lambda: periodic_graph(torch.zeros(1, 3), torch.ones(3, 3), 1.0), r"cell\[0\] has no volume"),
        (lambda: periodic_graph(torch.zeros(1, 3), torch.full((3, 3), torch.nan), 1.0), "no volume"),
        (lambda: periodic_graph(torch.full((1, 3), torch.nan), torch.eye(3), 1.0), r"pos\[0\] is not finite"),
        (
            lambda: periodic_graph(torch.zeros(2, 3), torch.eye(3), 1.0, torch.tensor([0, 1])),
            r"shape \(1, 3, 3\), expected \(2, 3, 3\)",
        ),
    ],
)
def test_bad_input_is_explained(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- the convolution with vectors of its own --------------------------------------------------------------------


def layer(edge_rep=None, **options):
    G = ek.groups.Oh()
    torch.manual_seed(0)
    return PointConv((2 * Scalar + V)(G), (2 * Scalar + V)(G), edge_rep, cutoff=2.0, **options).double()


@pytest.mark.parametrize("contraction", ["auto", "aggregate", "message", "kernel"])
def test_vectors_that_are_given_are_those_of_the_edges(contraction):
    pos, x = randn(9, 3), randn(9, 5)
    index = ek.radius_graph(pos, 2.0)[:, torch.randperm(int(ek.radius_graph(pos, 2.0).shape[1]))]
    conv = layer(contraction=contraction)
    same = conv(x, pos, index, edge_vec=pos[index[1]] - pos[index[0]])
    torch.testing.assert_close(same, conv(x, pos, index))
    assert not torch.allclose(conv(x, pos, index, edge_vec=pos[index[0]] - pos[index[1]]), same)


def test_vectors_that_do_not_fit_are_refused():
    pos, x, index = randn(3, 3), randn(3, 5), torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="edge_vec has 3 rows for 2 edges"):
        layer()(x, pos, index, edge_vec=torch.zeros(3, 3).double())
    with pytest.raises(TypeError, match="edge_vec has dtype torch.float32, the layer torch.float64"):
        layer()(x, pos, index, edge_vec=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"edge_vec has shape \(2, 2\), expected \(E, 3\)"):
        layer()(x, pos, index, edge_vec=torch.zeros(2, 2).double())


def test_a_convolution_on_a_crystal_is_one_on_its_images():
    """The images laid out as points of their own, as sources of a pair."""
    pos, x, conv = randn(3, 3), randn(3, 5), layer()
    index, vec = periodic_graph(pos, SKEW, 2.0)
    y = conv(x, pos, index, edge_vec=vec)
    shifts = torch.tensor(list(itertools.product(range(-5, 6), repeat=3)), dtype=torch.float64) @ SKEW
    sources = (pos[None] + shifts[:, None]).reshape(-1, 3)
    plain = ek.radius_graph(sources, 2.0, query=pos)
    apart = (sources[plain[0]] - pos[plain[1]]).norm(dim=1) > 1e-9
    want = conv((x.repeat(len(shifts), 1), x), (sources, pos), plain[:, apart])
    torch.testing.assert_close(y, want)


# ---- the network ------------------------------------------------------------------------------------------------


def crystal(pos, cell, z):
    n = len(pos)
    return GraphBatch(pos, torch.zeros(n, dtype=torch.int64), 1, x={"z": torch.as_tensor(z)}, cell=cell[None])


def network(group, **options):
    torch.manual_seed(1)
    options = {"channels": 4, "layers": 2, "radius": 4.5, "width": 3, "hidden": 8, "kinds": 3, "shift": 0.7} | options
    return CrystalNet(group, **options).double().eval()


RUTILE = 4.6 * torch.tensor(
    [[0, 0, 0], [0.5, 0.5, 0.32], [0.305, 0.305, 0], [-0.305, -0.305, 0], [0.805, 0.195, 0.32], [0.195, 0.805, 0.32]],
    dtype=torch.float64,
)
RUTILE_CELL = 4.6 * torch.diag(torch.tensor([1.0, 1.0, 0.64], dtype=torch.float64))


@pytest.mark.parametrize("group", ["O(3)", "SO(3)"])
def test_the_tensor_has_the_symmetry_of_the_crystal(group):
    net = network(ek.groups.get(group))
    turn = torch.linalg.qr(randn(3, 3, seed=2))[0]
    # rock salt, cubic, in its primitive cell, turned in space: a multiple of 1
    salt = 5.6 / 2 * torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64) @ turn.T
    y = net(crystal(torch.stack([torch.zeros(3).double(), salt.sum(0) / 2]), salt, [11, 17]))[0]
    assert (y - y.trace() / 3 * CUBE).abs().max() < 1e-10 * y.abs().max() and y.abs().max() > 0.1
    # rutile, tetragonal: one axis, and it is not cubic
    y = turn.T @ net(crystal(RUTILE @ turn.T, RUTILE_CELL @ turn.T, [22, 22, 8, 8, 8, 8]))[0] @ turn
    axial = torch.diag(torch.stack([y[0, 0], y[0, 0], y[2, 2]]))
    assert (y - axial).abs().max() < 1e-10 * y.abs().max() and (y[0, 0] - y[2, 2]).abs() > 1e-3
    # a general crystal has none of it
    y = net(crystal(randn(3, 3), 2 * SKEW, [8, 8, 22]))[0]
    assert torch.equal(y, y.T) and (y - y.trace() / 3 * CUBE).abs().max() > 1e-3


@pytest.mark.parametrize("group", ["O(3)", "Oh", "O2z", "C2z"])
def test_the_tensor_turns_with_the_crystal(group):
    G = ek.groups.get(group)
    net, pos, z = network(G), randn(3, 3), [8, 8, 22]
    y = net(crystal(pos, 2 * SKEW, z))[0]
    for g in G.sample(3, 0):
        g = torch.as_tensor(g.matrix)
        torch.testing.assert_close(net(crystal(pos @ g.T, 2 * SKEW @ g.T, z))[0], g @ y @ g.T, rtol=0, atol=1e-10)
    other = torch.linalg.qr(randn(3, 3))[0]
    moved = net(crystal(pos @ other.T, 2 * SKEW @ other.T, z))[0]
    assert ((moved - other @ y @ other.T).abs().max() < 1e-10) == (group == "O(3)")


def test_a_group_that_is_not_orthogonal_turns_both_indices():
    """In lattice coordinates, neighbours being found in the metric of the group."""
    change = torch.tensor([[1.0, 0.4, 0.0], [0.0, 1.2, 0.3], [0.0, 0.0, 0.9]], dtype=torch.float64)
    there = torch.linalg.inv(change)
    cubic = ek.groups.Oh()
    G = ek.MatrixGroup("skew", change.numpy() @ cubic.discrete_generators @ there.numpy())
    net, z = network(G, shift=0.3), [8, 8, 22]
    pos, cell = randn(3, 3) @ change.T, 2 * SKEW @ change.T
    y = net(crystal(pos, cell, z))[0]
    assert y.abs().max() > 1e-3
    for g in G.sample(3, 0):
        g = torch.as_tensor(g.matrix)
        torch.testing.assert_close(net(crystal(pos @ g.T, cell @ g.T, z))[0], g @ y @ g.T, rtol=0, atol=1e-9)


def test_the_tensor_does_not_depend_on_the_cell_or_the_order():
    net, pos, z = network(ek.groups.O(3)), randn(3, 3), torch.tensor([8, 6, 22])
    y = net(crystal(pos, 2 * SKEW, z))
    shifts = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64) @ (2 * SKEW)
    double = torch.diag(torch.tensor([2.0, 1, 1], dtype=torch.float64)) @ (2 * SKEW)
    many = crystal((pos[None] + shifts[:, None]).reshape(-1, 3), double, z.repeat(2))
    torch.testing.assert_close(net(many), y, rtol=0, atol=1e-10)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(net(crystal(pos[order] + 3.0, 2 * SKEW, z[order])), y, rtol=0, atol=1e-10)
    swapped = net(crystal(pos, 2 * SKEW, z[order]))
    assert (swapped - y).abs().max() > 1e-3


def test_switches_of_the_network():
    G = ek.groups.O(3)
    batch = crystal(randn(3, 3), 2 * SKEW, [8, 6, 22])
    for options in ({"attributes": ()}, {"kernel": "fixed", "width": None, "hidden": None}):
        net = network(G)
        other = network(G, **options) if "kernel" not in options else CrystalNet(G, channels=4, kernel="fixed").double()
        assert other.edge_rep is None and net.edge_rep.size == 6 and other(batch).shape == (1, 3, 3)


# ---- data and task ----------------------------------------------------------------------------------------------


def compact(n=12, seed=0):
    """Crystals of two atoms, whose tensor follows from their elements and their cell."""
    rng = np.random.default_rng(seed)
    cell = 3 * np.eye(3) + 0.5 * rng.standard_normal((n, 3, 3))
    frac = rng.random((2 * n, 3))
    z = rng.choice([8, 22, 50], 2 * n)
    eps = np.linalg.inv(cell.transpose(0, 2, 1) @ cell / 9) * z.reshape(n, 2).mean(1)[:, None, None] / 10
    return {
        "ptr": 2 * np.arange(n + 1, dtype=np.int32),
        "z": z.astype(np.uint8),
        "pos": np.einsum("na,nab->nb", frac, np.repeat(cell, 2, 0)).astype(np.float32),
        "cell": cell.astype(np.float32),
        "eps_electronic": eps.astype(np.float32),
        "eps_total": (2 * eps).astype(np.float32),
        "split": np.array([0] * (n - 4) + [1, 1, 1, 2], np.uint8),
    }


def test_crystals_are_read(tmp_path):
    arrays = compact()
    np.savez(tmp_path / "dielectric.npz", **arrays)
    for root in (tmp_path, tmp_path / "dielectric.npz", str(tmp_path)):
        parts = load_dielectric(root)
        assert {name: len(part) for name, part in parts.items()} == {"train": 8, "val": 3, "test": 1}
    batch = parts["val"][[2, 0]]
    assert torch.equal(batch.cell, torch.from_numpy(arrays["cell"][[10, 8]]))
    assert torch.equal(batch.pos, torch.from_numpy(arrays["pos"][[20, 21, 16, 17]])) and batch.edge_index is None
    assert torch.equal(batch.x["z"], torch.from_numpy(arrays["z"][[20, 21, 16, 17]].astype(np.int64)))
    np.testing.assert_allclose(batch.y, arrays["eps_electronic"][[10, 8]], rtol=1e-6)
    np.testing.assert_allclose(load_dielectric(tmp_path, "total")["val"].y, arrays["eps_total"][8:11], rtol=1e-6)
    assert "cell=(2, 3, 3)" in repr(batch) and batch.to(dtype=torch.float64).cell.dtype == torch.float64
    with pytest.raises(ValueError, match="target is 'ionic', expected one of electronic, total"):
        load_dielectric(tmp_path, "ionic")


def spoiled(name, where, value):
    arrays = compact()
    arrays[name] = arrays[name].copy()
    arrays[name][where] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({k: v for k, v in compact().items() if k != "cell"}, r"lacks the arrays \['cell'\]"),
        (compact() | {"ptr": np.arange(13)}, "ptr does not go from 0 to 24"),
        (spoiled("ptr", 3, 4), "crystal 2: ptr leaves it without atoms"),
        (compact() | {"pos": np.zeros((24, 2))}, r"pos has shape \(24, 2\) for 24 atoms"),
        (compact() | {"cell": np.zeros((12, 9))}, r"cell has shape \(12, 9\) for 12 crystals"),
        (compact() | {"split": np.zeros(3)}, "split has shape"),
        (compact() | {"z": np.ones(24)}, "z is not a vector of whole numbers"),
        (spoiled("z", 5, 119), r"crystal 2: z goes beyond 1 \.\. 118"),
        (spoiled("z", 5, 0), "crystal 2: z goes beyond"),
        (spoiled("pos", (7, 1), np.nan), "crystal 3: pos is not finite"),
        (spoiled("cell", (4, 1), np.inf), "crystal 4: cell or eps_electronic is not finite"),
        (spoiled("cell", (4, 1), 0.0), "crystal 4: the lattice vectors in cell span no volume"),
        (spoiled("eps_electronic", (6, 0, 1), 9.0), "crystal 6: eps_electronic is not symmetric"),
        (spoiled("eps_electronic", 6, -np.eye(3)), "crystal 6: eps_electronic is not positive-definite"),
    ],
)
def test_garbled_crystals_are_named(tmp_path, arrays, words):
    np.savez(tmp_path / "dielectric.npz", **arrays)
    with pytest.raises(DataError, match=f"dielectric.npz.*{words}"):
        load_dielectric(tmp_path)


def test_crystals_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="dielectric.npz does not exist"):
        load_dielectric(tmp_path)


def test_the_logarithm_of_a_tensor():
    y = torch.linalg.matrix_exp(randn(5, 3, 3) + randn(5, 3, 3).mT)
    torch.testing.assert_close(torch.linalg.matrix_exp(matrix_log(y)), y)
    turn = torch.linalg.qr(randn(3, 3))[0]
    torch.testing.assert_close(matrix_log(turn @ y @ turn.T), turn @ matrix_log(y) @ turn.T)


def test_baselines_are_the_best_constants():
    y = torch.linalg.matrix_exp(randn(40, 3, 3) * 0.3 + 1.5 * CUBE)
    y = (y + y.mT) / 2
    part = type("Part", (), {"y": y})
    found = TASKS["dielectric"].baseline({"train": part, "val": part})

    def cost(constant):
        return float((y - constant).flatten(1).norm(dim=1).mean()), float((y - constant).abs().mean())

    multiples = [cost(c * CUBE) for c in torch.linspace(0.5, 15, 3000)]
    assert found["baseline"] == pytest.approx(min(m[0] for m in multiples), rel=1e-5)
    assert found["baseline_mae"] == pytest.approx(min(m[1] for m in multiples), rel=1e-3)
    assert found["baseline_constant"] < found["baseline"] and found["baseline_constant_mae"] < found["baseline_mae"]
    for seed in range(20):
        other = cost(y.mean(0) + 0.3 * randn(3, 3, seed=seed))
        assert found["baseline_constant"] <= other[0] and found["baseline_constant_mae"] <= other[1]


def test_a_tensor_is_learned(tmp_path):
    pytest.importorskip("lightning")
    np.savez(tmp_path / "dielectric.npz", **compact(100))
    model = {"channels": 4, "layers": 1, "width": 3, "hidden": 16, "radius": 3.5}
    config = RunConfig("dielectric", root=str(tmp_path), epochs=8, batch_size=16, lr=2e-2, model=model)
    assert config.target == "electronic"
    results = train(ek.groups.O(3), config, tmp_path / "run", progress=False)
    assert results["metric"] == "frobenius" and results["unit"] == ""
    assert results["best"] < 0.8 * results["baseline"] and results["mae"] < 0.8 * results["baseline_mae"]
    assert {"baseline_constant", "baseline_constant_mae"} <= results.keys()
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,loss,frobenius,mae,lr,seconds"


def test_real_crystals(tmp_path):
    import os
    from pathlib import Path

    folder = Path(os.environ.get("EMKERNEL_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "dielectric.npz").is_file():
        pytest.skip("the compact data files are not here: set EMKERNEL_DATA to their folder")
    parts = load_dielectric(folder)
    assert (len(parts["train"]), len(parts["val"])) == (845, 105)
    found = TASKS["dielectric"].baseline(parts)
    assert found["baseline"] == pytest.approx(5.036, abs=2e-3)
    assert found["baseline_mae"] == pytest.approx(0.975, abs=1e-3)
