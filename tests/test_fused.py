"""The fused sums over neighbours: plain torch on the CPU, the Triton kernels on a GPU, and these in the interpreter."""

import os
import shutil
import sys

import numpy as np
import pytest
import torch
from oracles import COMPILER, interpreter

from emkernel import Neighbours
from emkernel.ops import fused
from emkernel.ops.fused import edge_grad, outer_sum, source_grad
from emkernel.ops.neighbours import ROW_LIMIT

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def random_edges(sources, targets, count, seed=0):
    draw = np.random.default_rng(seed)
    return torch.tensor(np.stack([draw.integers(0, sources, count), draw.integers(0, targets, count)]))


def regular(nodes, degree):
    target = torch.arange(nodes).repeat_interleave(degree)
    return torch.stack([(target + torch.arange(degree).repeat(nodes) + 1) % nodes, target])


def hub(many):
    """One node that is joined to all others, on top of a few more edges in no order."""
    at = torch.arange(many) % 7
    return torch.cat([random_edges(7, 5, 9), torch.stack([at, torch.full_like(at, 3)])], 1)[:, torch.randperm(many + 9)]


GRAPHS = {  # sources, targets, edges
    "regular": (6, 6, regular(6, 4)),
    "ragged": (8, 8, torch.cat([random_edges(8, 8, 20), random_edges(3, 2, 17, 1)], 1)),
    "isolated targets and sources": (9, 9, random_edges(4, 3, 12)),
    "repeated edges": (3, 3, torch.tensor([[0, 0, 0, 2, 2], [1, 1, 1, 0, 0]])),
    "bipartite": (3, 7, random_edges(3, 7, 25)),
    "one node": (1, 1, torch.tensor([[0], [0]])),
    "no edges": (3, 2, torch.zeros(2, 0, dtype=torch.int64)),
    "no targets": (3, 0, torch.zeros(2, 0, dtype=torch.int64)),
    "no sources": (0, 3, torch.zeros(2, 0, dtype=torch.int64)),
    "target of many": (7, 5, hub(2 * ROW_LIMIT + 1)),
    "source of many": (5, 7, hub(ROW_LIMIT + 1).flip(0)),
    "rows as long as the limit": (2, 2, torch.tensor([[0, 1], [1, 0]]).repeat(1, ROW_LIMIT)),
}
# a tile, less than one, more than one in either direction, next to nothing, nothing
SIZES = [(16, 32), (3, 17), (70, 5), (5, 130), (1, 1), (0, 4), (4, 0)]
CASES = [(name, (3, 17)) for name in GRAPHS] + [("ragged", size) for size in SIZES]


def setting(name, p, q, dtype, device="cpu", seed=0):
    """The graph with h in its order, f, G, and T's three derivatives, by numpy on the edges as they were given."""
    sources, targets, edges = GRAPHS[name]
    draw = np.random.default_rng(seed)
    h, f, G = (torch.tensor(draw.normal(size=s)).to(dtype)
               for s in ((edges.shape[1], p), (sources, q), (targets, p, q)))  # fmt: skip
    graph = Neighbours.of(edges.to(device), sources, targets, grouped=False)
    (j, i), (hn, fn, Gn) = edges.numpy(), (x.double().numpy() for x in (h, f, G))
    A, df = np.zeros((targets, p, q)), np.zeros((sources, q))
    np.add.at(A, i, hn[:, :, None] * fn[j][:, None, :])
    np.add.at(df, j, np.einsum("ep,epq->eq", hn, Gn[i]))
    dh = graph.sort(torch.tensor(np.einsum("epq,eq->ep", Gn[i], fn[j])).to(device))
    expected = torch.tensor(A), dh.cpu(), torch.tensor(df)
    return graph, graph.sort(h.to(device)), f.to(device), G.to(device), expected


def assert_near(given, expected, dtype):
    assert given.dtype == dtype and given.shape == expected.shape
    error = (given.cpu().double() - expected).norm() / expected.norm().clamp(min=1e-300)
    assert error < TOLERANCE[dtype]


# ---- the three operations ---------------------------------------------------------------------------------------


def test_the_kernels_run_where_they_are_asked_for():
    assert (fused._kernels(torch.zeros(1)) is not None) == INTERPRETED


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("name", "size"), CASES, ids=str)
def test_the_operations_are_the_sums_over_the_edges(name, size, dtype, device):
    graph, h, f, G, (A, dh, df) = setting(name, *size, dtype, device)
    assert_near(outer_sum(h, f, graph), A, dtype)
    assert_near(edge_grad(G, f, graph), dh, dtype)
    assert_near(source_grad(h, G, graph), df, dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_not_contiguous_is_read_in_its_strides(device):
    graph, h, f, G, (A, dh, df) = setting("ragged", 3, 17, torch.float64, device)
    h, f, G = h.T.contiguous().T, f.T.contiguous().T, G.transpose(1, 2).contiguous().transpose(1, 2)
    assert_near(outer_sum(h, f, graph), A, torch.float64)
    assert_near(edge_grad(G, f, graph), dh, torch.float64)
    assert_near(source_grad(h, G, graph), df, torch.float64)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["ragged", "target of many", "source of many"])
def test_two_runs_agree_to_the_last_bit(name, device):
    if device == "cuda" and fused._kernels(torch.zeros(1, device=device)) is None:
        pytest.skip("no Triton here: sums of plain torch on a GPU are atomic")
    graph, h, f, G, _ = setting(name, 3, 17, torch.float32, device)
    for op, x, y in ((outer_sum, h, f), (edge_grad, G, f), (source_grad, h, G)):
        assert torch.equal(op(x, y, graph), op(x, y, graph))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_places_past_the_range_of_int32(device):
    kernels = fused._kernels(torch.zeros(1, device=device))
    if kernels is None:
        pytest.skip("no Triton here, or on the CPU: TRITON_INTERPRET=1 pytest -m slow tests/test_fused.py")
    p, q = 64, 16
    edges, targets = 2**31 // p + 10, 2**31 // (p * q) + 5
    random = torch.Generator().manual_seed(0)
    # only the last three edges and the last target are ever written or read
    h, G = (torch.empty(*s, dtype=torch.float16, device=device) for s in ((edges, p), (targets, p, q)))
    source = torch.empty(edges, dtype=torch.int64, device=device)
    h[-3:], G[-1] = torch.randn(3, p, generator=random).to(h), torch.randn(p, q, generator=random).to(h)
    source[-3:] = torch.tensor([0, 2, 1])
    f = torch.randn(3, q, generator=random).to(h)
    row, none = torch.tensor([[targets - 1, edges - 3, edges, 0, 0]], device=device), torch.zeros(0, 5).to(source)
    A = kernels.outer_sum(h, f, source, row, none)[0]
    dh = kernels.edge_grad(G, f, source, row, none)[-3:]
    hd, fd, Gd = h[-3:].double().cpu(), f[source[-3:]].double().cpu(), G[-1].double().cpu()
    assert_near(A, hd.T @ fd, torch.float16)
    assert_near(dh, fd @ Gd.T, torch.float16)


def test_slabs_make_no_difference(monkeypatch):
    graph, h, f, G, (A, dh, df) = setting("target of many", 3, 17, torch.float64)
    monkeypatch.setattr(fused, "SLAB", 1000)
    assert_near(outer_sum(h, f, graph), A, torch.float64)
    assert_near(edge_grad(G, f, graph), dh, torch.float64)
    assert_near(source_grad(h, G, graph), df, torch.float64)


def test_without_triton_there_is_plain_torch(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(fused, "_triton", lambda: None)
    graph, h, f, _, (A, _, _) = setting("ragged", 3, 17, torch.float64)
    assert_near(outer_sum(h, f, graph), A, torch.float64)


# ---- derivatives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", ["outer_sum", "edge_grad", "source_grad"])
def test_first_and_second_derivatives(op, device):
    edges = torch.tensor([[0, 2, 2, 0], [1, 1, 0, 1]], device=device)
    graph = Neighbours.of(edges, 4, 3, grouped=False)  # a source and a target are isolated
    random = torch.Generator().manual_seed(0)
    h, f, G = (torch.randn(*s, dtype=torch.float64, generator=random).to(device).requires_grad_()
               for s in ((4, 2), (4, 3), (3, 2, 3)))  # fmt: skip
    function, args = {
        "outer_sum": (outer_sum, (h, f)), "edge_grad": (edge_grad, (G, f)), "source_grad": (source_grad, (h, G)),
    }[op]  # fmt: skip
    # along random directions where every call takes a while
    assert torch.autograd.gradcheck(lambda x, y: function(x, y, graph), args, fast_mode=INTERPRETED)
    assert torch.autograd.gradgradcheck(lambda x, y: function(x, y, graph), args, fast_mode=INTERPRETED)


def test_a_wrong_derivative_is_seen(monkeypatch):
    graph, h, f, _, _ = setting("ragged", 2, 3, torch.float64)
    backwards = Neighbours.of(torch.stack([graph.target, graph.source]), 8, grouped=False)
    h, f = h.requires_grad_(), f.requires_grad_()
    wrong = lambda x, y: outer_sum(x, y.detach(), graph) + outer_sum(x.detach(), y, backwards)  # noqa: E731
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(wrong, (h, f))


# ---- registration and compilation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", ["outer_sum", "edge_grad", "source_grad"])
def test_the_registrations_are_sound(op, device):
    graph, h, f, G, _ = setting("ragged", 3, 5, torch.float64, device)
    pair = {"outer_sum": (h, f), "edge_grad": (G, f), "source_grad": (h, G)}[op]
    x, y = (t.clone().requires_grad_() for t in pair)
    torch.library.opcheck(getattr(torch.ops.emkernel, op).default, (x, y, fused._tables(graph)))


def energy_and_force(h, f, w, graph):
    A = outer_sum(h.tanh(), f, graph)
    return (A * w).square().sum((1, 2)), A


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", [
    "aot_eager",
    pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.skipif(
        not any(map(shutil.which, ("g++", "clang++"))), reason="inductor needs a C++ compiler")]),
])  # fmt: skip
def test_compiled_whole_and_for_all_sizes(backend, device):
    torch._dynamo.reset()
    compiled = torch.compile(energy_and_force, fullgraph=True, dynamic=True, backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=True):
        # the first has no two sizes equal: those that are would be taken to be so always
        for name in ("bipartite", "ragged", "regular"):
            graph, h, f, _, _ = setting(name, 2, 17, torch.float64, device)
            w = torch.linspace(-1, 1, 2 * 17, dtype=torch.float64, device=device).reshape(2, 17)
            results = []
            for function in (energy_and_force, compiled):
                x, y = h.clone().requires_grad_(), f.clone().requires_grad_()
                energy, A = function(x, y, w, graph)
                results.append([energy, A, *torch.autograd.grad(energy.sum(), (x, y))])
            for given, expected in zip(results[1], results[0]):
                torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)


# ---- the prepared graph --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_spans_cover_every_edge_once_and_none_is_longer_than_the_limit(name):
    sources, targets, edges = GRAPHS[name]
    graph = Neighbours.of(edges, sources, targets, grouped=False)
    assert (graph.num_edges, graph.num_sources, graph.num_targets) == (edges.shape[1], sources, targets)
    assert torch.equal(graph.degree, torch.bincount(edges[1], minlength=targets))
    assert torch.equal(torch.stack([graph.source, graph.target]), edges[:, graph.order])
    for node, rows, chunks in (
        (graph.target, graph.rows, graph.row_chunks),
        (graph.source[graph.by_source], graph.columns, graph.column_chunks),
    ):
        used = chunks[chunks[:, 0] >= 0]
        assert torch.equal(rows[:, 0], torch.arange(len(rows)))
        pieces = []
        for row, begin, end, first, last in rows.tolist():
            assert used[first:last, 0].tolist() == [row] * (last - first)
            pieces += [(row, begin, end), *map(tuple, used[first:last, :3].tolist())]
        assert all(end - begin <= ROW_LIMIT for _, begin, end in pieces)
        covered = [row for row, begin, end in pieces for _ in range(begin, end)]
        assert covered == node.tolist()
        assert [e for _, begin, end in pieces for e in range(begin, end)] == list(range(edges.shape[1]))


def test_preparing_a_graph_never_waits_for_the_device():
    # a meta tensor has no values: whoever asks for one fails
    edges = torch.empty(2, 1000, dtype=torch.int64, device="meta")
    graph = Neighbours.of(edges, 20, 30, grouped=False)
    assert (graph.num_sources, graph.num_targets) == (20, 30)
    with pytest.raises(ValueError, match="no values"):
        Neighbours.of(edges, 20, 30, grouped=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_nothing_waits_for_the_gpu():
    sources, targets, edges = GRAPHS["target of many"]
    graph, h, f, _, _ = setting("target of many", 3, 17, torch.float32, "cuda")
    edges, h = edges.cuda(), h.requires_grad_()
    outer_sum(h, f, graph).sum().backward()  # kernels are tuned at their first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        outer_sum(h, f, Neighbours.of(edges, sources, targets, grouped=False)).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- what is refused, what is cast ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "message"), [
    (lambda h, f, G, g: outer_sum(h[1:], f, g), r"h must be \(37, p\)"),
    (lambda h, f, G, g: outer_sum(h, f[1:], g), r"f must be \(8, q\)"),
    (lambda h, f, G, g: outer_sum(h, f[0], g), r"f must be \(8, q\)"),
    (lambda h, f, G, g: edge_grad(G, f[:, 1:], g), r"f must be \(8, 3\)"),
    (lambda h, f, G, g: source_grad(h, G[:, 1:], g), r"G must be \(8, 2, q\)"),
])  # fmt: skip
def test_wrong_shapes_are_refused(call, message):
    graph, h, f, G, _ = setting("ragged", 2, 3, torch.float64)
    with pytest.raises(ValueError, match=message):
        call(h, f, G, graph)


def test_different_dtypes_are_refused_and_cast_under_autocast():
    graph, h, f, _, (A, _, _) = setting("ragged", 2, 3, torch.bfloat16)
    with pytest.raises(TypeError, match="float32 and torch.bfloat16"):
        outer_sum(h.float(), f, graph)
    with torch.autocast("cpu", torch.bfloat16):
        assert_near(outer_sum(h.float(), f, graph), A, torch.bfloat16)


@pytest.mark.parametrize("edges", [torch.tensor([[0, 9], [0, 0]]), torch.tensor([[0, 0], [0, -1]])])
def test_an_edge_to_nowhere_is_refused(edges):
    with pytest.raises(IndexError, match="edge_index"):
        Neighbours.of(edges, 8, grouped=False)


# ---- the kernels without a GPU ---------------------------------------------------------------------------------------


@pytest.mark.skipif(INTERPRETED, reason="these tests are the ones that run in the interpreter")
def test_the_kernels_do_the_same_in_the_interpreter():
    out = interpreter("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k",
              "(operations or derivatives or agree or sound or kernels_run or contiguous) and not bfloat16",
              TRITON_INTERPRET="1")  # fmt: skip
    assert " passed" in out and " failed" not in out


COMPILE = """
from triton.language import float32, float64
from emkernel.ops import _fused_triton as fused

for dtype, wide, ACC in (("fp32", "fp32", float32), ("bf16", "fp32", float32), ("fp64", "fp64", float64)):
    types = {n: "*" + dtype for n in ("h", "f", "G", "x", "out")} | {n: "*i64" for n in ("source", "index", "spans")}
    types |= {n: "*" + wide for n in ("partial", "values")}
    collected = types | {"out": "*" + wide}
    config = fused._DOUBLE if ACC == float64 else fused._OUTER.configs[-1]
    for sizes in ({}, {"P": 1, "Q": 1}):
        tile = dict(ACC=ACC, **config.kwargs, **sizes)
        forward, back = dict(stride_q=1, INDEXED=True, **tile), dict(stride_p=1, INDEXED=False, **tile)
        compile(fused._outer_kernel, types, tile, config.num_warps)
        compile(fused._product_kernel, types, forward, config.num_warps)
        compile(fused._product_kernel, collected, back, config.num_warps)
    compile(fused._collect_kernel, types, dict(ACC=ACC, BLOCK_Q=64, BLOCK_E=16), 2)
"""


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
@pytest.mark.parametrize("capability", [90, pytest.param(80, marks=pytest.mark.slow)])
def test_the_kernels_compile_for_a_gpu_that_is_not_here(capability, tmp_path):
    out = interpreter("-c", COMPILER + COMPILE, str(capability), TRITON_CACHE_DIR=str(tmp_path))
    assert len(out.splitlines()) == 3 * 7
