"""Neighbour graphs: both searches against brute force, on clouds of every size, with ties, in any dimension."""

import itertools

import pytest
import torch

import emkernel as ek
from emkernel._search import Points, dense_knn, dense_radius, tree_knn, tree_radius
from emkernel.graph import interval_graph, knn_graph, radius_graph, random_subset


def brute(src, src_batch, dst, dst_batch, same, loop, metric=None, k=None, r=None):
    """Edges by the definition, one target at a time."""
    edges = []
    for i in range(len(dst)):
        ranked = []
        for j in range(len(src)):
            if src_batch[j] != dst_batch[i] or (same and i == j and not loop):
                continue
            v = (dst[i] - src[j]).double()
            d2 = float(v @ v) if metric is None else float(v @ metric @ v)
            if r is None or d2 <= r * r:
                ranked.append((-1.0 if same and i == j else d2, j))
        edges += [(j, i) for _, j in sorted(ranked)[:k]]
    return torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T


def clouds(d=3, seed=0, sizes=(7, 1, 0, 25, 2), dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return torch.randn(len(batch), d, generator=g, dtype=dtype), batch


def dense_points(pos, batch, loop=False):
    return Points(pos.double(), pos.double(), batch, batch, True, loop)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_both_searches_are_the_definition(d, loop, shuffled):
    pos, batch = clouds(d)
    if shuffled:
        p = torch.randperm(len(pos), generator=torch.Generator().manual_seed(1))
        pos, batch = pos[p], batch[p]
    for k in (1, 4, 40):
        wanted = brute(pos, batch, pos, batch, True, loop, k=k)
        assert torch.equal(knn_graph(pos, k, batch, loop=loop), wanted)
        assert torch.equal(dense_knn(dense_points(pos, batch, loop), k), wanted)
    for r in (0.3, 1.0, 100.0):
        wanted = brute(pos, batch, pos, batch, True, loop, r=r)
        assert torch.equal(radius_graph(pos, r, batch, loop=loop), wanted)
        assert torch.equal(dense_radius(dense_points(pos, batch, loop), r), wanted)


@pytest.mark.parametrize("loop", [False, True])
def test_ties_are_decided_by_index_in_both_searches(loop):
    lattice = torch.tensor(list(itertools.product(range(4), repeat=3)), dtype=torch.float64)
    coincident = torch.zeros(30, 3, dtype=torch.float64)
    some = torch.cat([coincident[:5], lattice[:9], coincident[:7]])
    for pos in (lattice, coincident, some):
        batch = torch.zeros(len(pos), dtype=torch.int64)
        for k in (1, 3, 6, 10, 17):
            wanted = brute(pos, batch, pos, batch, True, loop, k=k)
            assert torch.equal(knn_graph(pos, k, loop=loop), wanted)
            assert torch.equal(dense_knn(dense_points(pos, batch, loop), k), wanted)
        for r in (1.0, 2.0):  # points at exactly r are inside
            wanted = brute(pos, batch, pos, batch, True, loop, r=r)
            assert torch.equal(radius_graph(pos, r, loop=loop), wanted)


def test_ties_after_rotation_agree_between_the_searches():
    lattice = torch.tensor(list(itertools.product(range(9), repeat=3)), dtype=torch.float64)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    pos, batch = lattice @ q, torch.zeros(len(lattice), dtype=torch.int64)
    for k in (6, 10, 20):
        assert torch.equal(knn_graph(pos, k), dense_knn(dense_points(pos, batch), k))


def test_search_in_small_blocks_gives_the_same(monkeypatch):
    pos, batch = clouds(sizes=(60, 3, 200, 17))
    lattice = torch.tensor(list(itertools.product(range(6), repeat=3)), dtype=torch.float64)
    wanted = [knn_graph(pos, 9, batch), radius_graph(pos, 0.8, batch), knn_graph(lattice, 10)]
    monkeypatch.setattr("emkernel._search._DENSE_PAIRS", 500)
    monkeypatch.setattr("emkernel._search._BALL_PAIRS", 100)
    assert torch.equal(dense_knn(dense_points(pos, batch), 9), wanted[0])
    assert torch.equal(dense_radius(dense_points(pos, batch), 0.8), wanted[1])
    assert torch.equal(knn_graph(lattice, 10), wanted[2])


def test_queries_are_targets_and_may_lie_in_clouds_without_sources():
    pos, batch = clouds(sizes=(7, 0, 25))
    query, query_batch = clouds(seed=5, sizes=(3, 4, 6, 2))
    for k in (1, 5, 30):
        wanted = brute(pos, batch, query, query_batch, False, False, k=k)
        assert torch.equal(knn_graph(pos, k, batch, query=query, query_batch=query_batch), wanted)
        points = Points(pos, query, batch, query_batch, False, False)
        assert torch.equal(dense_knn(points, k), wanted)
    wanted = brute(pos, batch, query, query_batch, False, False, r=1.5)
    assert torch.equal(radius_graph(pos, 1.5, batch, query=query, query_batch=query_batch), wanted)
    kept = knn_graph(pos, 1, query=pos[:4])
    assert torch.equal(kept, torch.arange(4).repeat(2, 1)), (
        "a target that is also a source finds itself first"
    )


def test_metric_replaces_the_distance():
    pos, batch = clouds(2, sizes=(20, 9))
    metric = torch.tensor([[4.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    for k in (1, 5):
        wanted = brute(pos, batch, pos, batch, True, False, metric=metric, k=k)
        assert torch.equal(knn_graph(pos, k, batch, metric=metric), wanted)
    wanted = brute(pos, batch, pos, batch, True, False, metric=metric, r=1.0)
    assert torch.equal(radius_graph(pos, 1.0, batch, metric=metric), wanted)
    assert not torch.equal(radius_graph(pos, 1.0, batch), wanted), "the metric matters here"


def test_invariant_under_the_group_that_keeps_the_metric():
    pos, batch = clouds(2, sizes=(40,))
    a = torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    c, s = torch.cos(torch.tensor(0.7)).double(), torch.sin(torch.tensor(0.7)).double()
    g = torch.linalg.inv(a) @ torch.stack([torch.stack([c, -s]), torch.stack([s, c])]) @ a
    moved = pos @ g.T + 3
    assert torch.equal(knn_graph(moved, 5, metric=a.T @ a), knn_graph(pos, 5, metric=a.T @ a))
    assert not torch.equal(knn_graph(moved, 5), knn_graph(pos, 5)), "negative control: not an isometry of |x|"


def test_no_cap_on_the_number_of_search():
    pos, _ = clouds(sizes=(150,))
    assert radius_graph(pos, 1e3).shape == (2, 150 * 149)


def test_float32_positions_and_narrow_batch():
    pos, batch = clouds(sizes=(30, 40), dtype=torch.float32)
    assert torch.equal(knn_graph(pos, 5, batch.to(torch.int32)), knn_graph(pos.double(), 5, batch))
    assert knn_graph(pos.requires_grad_(), 5, batch).dtype == torch.int64


def test_many_clouds_far_from_the_origin():
    pos, batch = clouds(sizes=(6,) * 300)
    assert torch.equal(
        radius_graph(pos + 1e4, 0.5, batch), dense_radius(dense_points(pos + 1e4, batch), 0.5)
    )
    assert torch.equal(knn_graph(pos + 1e4, 3, batch), dense_knn(dense_points(pos + 1e4, batch), 3))


def test_empty_and_single():
    for n in (0, 1):
        pos = torch.zeros(n, 3)
        assert knn_graph(pos, 3).shape == (2, 0) and radius_graph(pos, 1.0).shape == (2, 0)
        assert knn_graph(pos, 3, loop=True).shape == (2, n) and radius_graph(pos, 1.0, loop=True).shape == (
            2,
            n,
        )
        assert dense_knn(
            dense_points(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)), 2
        ).shape == (2, 0)
    assert knn_graph(torch.zeros(0, 3), 3, query=torch.zeros(4, 3)).shape == (2, 0)
    assert radius_graph(torch.zeros(4, 3), 1.0, query=torch.zeros(0, 3)).shape == (2, 0)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_wide_clouds_are_not_sorted_whole(k, monkeypatch):
    pos, batch = clouds(sizes=(60, 20, 1, 90))
    pos = (2 * pos).round() / 2  # many equal distances
    expected = knn_graph(pos, k, batch)
    monkeypatch.setattr("emkernel._search._SORTED_WIDTH", 0)
    assert torch.equal(dense_knn(dense_points(pos, batch), k), expected)


def test_edges_in_order_need_not_be_sorted():
    pos, batch = clouds(sizes=(30, 20, 40))
    edges = knn_graph(pos, 4, batch)
    given, found = (ek.Neighbours.of(edges, len(pos), grouped=False, ordered=x) for x in (False, True))
    assert found.order is None
    for name in ("source", "target", "degree", "by_source", "rows", "row_chunks", "columns", "column_chunks"):
        assert torch.equal(getattr(found, name), getattr(given, name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_edges():
    pos, batch = clouds(sizes=(300, 20, 1, 500))
    metric = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.7]], dtype=torch.float64)
    for m in (None, metric):
        on_gpu = knn_graph(pos.cuda(), 9, batch.cuda(), metric=m)
        assert on_gpu.is_cuda and torch.equal(on_gpu.cpu(), knn_graph(pos, 9, batch, metric=m))
        on_gpu = radius_graph(pos.cuda(), 0.7, batch.cuda(), metric=m, loop=True)
        assert torch.equal(on_gpu.cpu(), radius_graph(pos, 0.7, batch, metric=m, loop=True))


NAN = torch.tensor([[0.0, 0.0], [float("nan"), 0.0]])
TWO = torch.zeros(2, 2)
APART = torch.eye(2, dtype=torch.float64)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: knn_graph(torch.zeros(2, 5, 3), 1), r"shape \(2, 5, 3\).*batch vector"),
        (lambda: knn_graph(torch.zeros(4), 1), r"shape \(4,\)"),
        (lambda: knn_graph(torch.zeros(4, 0), 1), "d >= 1"),
        (lambda: knn_graph(torch.zeros(4, 3, dtype=torch.int64), 1), "int64.*floating"),
        (lambda: knn_graph([[0.0]], 1), "list"),
        (lambda: knn_graph(NAN, 1), r"pos\[1\] is not finite"),
        (lambda: radius_graph(TWO, 1.0, query=NAN), r"query\[1\] is not finite"),
        (lambda: knn_graph(TWO, 0), "k is 0"),
        (lambda: knn_graph(TWO, 1.5), "k is 1.5"),
        (lambda: radius_graph(TWO, 0.0), "r is 0"),
        (lambda: radius_graph(TWO, float("nan")), "r is nan"),
        (
            lambda: knn_graph(TWO, 1, torch.zeros(3, dtype=torch.int64)),
            r"batch has shape \(3,\), expected \(2,\)",
        ),
        (lambda: knn_graph(TWO, 1, torch.zeros(2)), "float32.*integers"),
        (lambda: knn_graph(TWO, 1, torch.tensor([0, -1])), "-1"),
        (lambda: knn_graph(TWO, 1, query=torch.zeros(2, 3)), "d = 3.*d = 2"),
        (lambda: knn_graph(TWO, 1, query=TWO, loop=True), "loop"),
        (lambda: knn_graph(TWO, 1, torch.tensor([0, 1]), query=TWO), "without query_batch"),
        (lambda: knn_graph(TWO, 1, query_batch=torch.tensor([0, 1])), "without query"),
        (lambda: knn_graph(TWO, 1, metric=torch.eye(3)), r"\(3, 3\)"),
        (lambda: knn_graph(TWO, 1, metric=torch.diag(torch.tensor([1.0, -1.0]))), "eigenvalue -1.*Lorentz"),
        (lambda: knn_graph(TWO, 1, metric=torch.tensor([[1.0, 1.0], [0.0, 1.0]])), "symmetric"),
        (lambda: knn_graph(TWO.double() + torch.tensor([[0.0], [1e200]], dtype=torch.float64), 1), "rescale"),
        (lambda: radius_graph(APART * 1e200, 1.0), "rescale"),
        (lambda: knn_graph(APART * 1e-200, 1), "rescale"),
        (lambda: interval_graph(APART * 1e200, 1.0, torch.eye(2)), "rescale"),
        (lambda: radius_graph(TWO, 1e-200), "r is 1e-200.*in range"),
        (lambda: interval_graph(TWO, 1e200, torch.eye(2)), "r is 1e.200"),
        (lambda: random_subset(torch.tensor([0, 1]), -1), "n is -1"),
        (lambda: random_subset(torch.tensor([0.5]), 1), "float32"),
    ],
)
def test_bad_input_is_explained(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_random_subset_takes_n_of_each_cloud():
    batch = torch.tensor([3, 0, 0, 3, 0, 1, 0, 3, 0, 3])
    for n in (0, 1, 3, 10):
        index = random_subset(batch, n, generator=torch.Generator().manual_seed(0))
        assert torch.equal(torch.bincount(batch[index], minlength=4), torch.bincount(batch).clamp(max=n))
        assert torch.equal(
            index, torch.tensor(sorted(index.tolist(), key=lambda i: (int(batch[i]), i)), dtype=int)
        )
    assert random_subset(torch.zeros(0, dtype=torch.int64), 3).shape == (0,)


def test_random_subset_is_uniform_and_decided_by_its_generator():
    batch = torch.arange(2000).repeat_interleave(5)
    draw = [random_subset(batch, 2, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    share = torch.bincount(draw[0] % 5, minlength=5) / 2000
    assert (share - 0.4).abs().max() < 5 * (0.4 * 0.6 / 2000) ** 0.5


def test_tree_searches_are_what_the_cpu_uses():
    pos, batch = clouds(sizes=(30,))
    points = dense_points(pos, batch)
    assert torch.equal(tree_knn(points, 4), knn_graph(pos, 4))
    assert torch.equal(tree_radius(points, 0.9), radius_graph(pos, 0.9))
