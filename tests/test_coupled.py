"""All pairs coupled on the edges by one Triton kernel: on a GPU, and without one in Triton's interpreter."""

import os
import sys

import pytest
import torch
from oracles import COMPILER, interpreter

import emkernel as ek
from emkernel import Scalar, V, groups, nn
from emkernel.ops import coupled
from emkernel.ops.neighbours import ROW_LIMIT

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.filterwarnings("ignore:.*requires_grad.*:UserWarning")
runs = pytest.mark.skipif(not (INTERPRETED or DEVICE == "cuda"), reason="neither a GPU nor the interpreter")


def graph(sources, targets, count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(n, (count,), generator=draw) for n in (sources, targets)])


def square():
    """A turn by 90° in a plane, in no orthogonal basis."""
    return ek.MatrixGroup(discrete_generators=[[[0.0, -2.0], [0.5, 0.0]]], name="square")


GRAPHS = {
    "ragged": (9, 9, graph(9, 9, 40)),
    "isolated nodes": (9, 9, graph(4, 3, 12)),
    "bipartite": (3, 7, graph(3, 7, 25)),
    "no edges": (3, 4, graph(3, 4, 0)),
    "no targets": (3, 0, graph(3, 1, 0)),
    "target of many": (3, 2, graph(3, 1, ROW_LIMIT + 20)),
}
# a group, fields in and out, options, and the hidden irreducibles that are coupled on the edges
KERNELS = {
    "O(3)": (lambda: groups.O(3), 3 * Scalar + 2 * V, 2 * Scalar + V + V * V, {}, 2),
    "fixed": (lambda: groups.O(3), 3 * Scalar + 2 * V, 2 * Scalar + 3 * V, {"kernel": "fixed"}, 2),
    "Lorentz": (lambda: groups.SO13(), Scalar + 2 * V, 2 * Scalar + V, {}, 3),
    "SO(2) about z": (lambda: groups.SO2z(), 9 * Scalar + 8 * V, 2 * Scalar + V, {"width": 12}, 1),
    "a basis that is not orthogonal": (square, 6 * Scalar + 6 * V, Scalar + V, {"width": 12}, 1),
    "more channels than a tile": (lambda: groups.O(3), 70 * Scalar + V, Scalar + V, {"width": 3}, 2),
    "octahedral": (lambda: groups.Oh(), 2 * Scalar + V * V, Scalar + V, {}, 4),
}


def layer(name, dtype=torch.float64):
    torch.manual_seed(0)
    group, rep_in, rep_out, options, _ = KERNELS[name]
    g = group()
    return nn.PointConv(rep_in(g), rep_out(g), bias=False, self_interaction=False, **options).to(
        DEVICE, dtype
    )


def inputs(conv, sources, targets):
    draw = torch.Generator().manual_seed(1)
    dtype = conv.kernel.weight[0].dtype
    sizes = (sources, conv.rep_in.size), (sources, conv.rep_in.group.d), (targets, conv.rep_in.group.d)
    return [
        torch.randn(*s, generator=draw, dtype=torch.float64).to(DEVICE, dtype).requires_grad_() for s in sizes
    ]


def outputs(conv, name, contraction, second=False):
    """The output and its derivatives by everything; or those of the force, Σ y² by the sources."""
    sources, targets, edges = GRAPHS[name]
    x, source, target = given = inputs(conv, sources, targets)
    conv.contraction = contraction
    prepared = ek.Neighbours.of(edges.to(DEVICE), sources, targets, grouped=False)
    y = conv((x, None), (source, target), prepared)
    given += [p for p in conv.parameters() if p.requires_grad]
    if second:
        (y,) = torch.autograd.grad(y.square().sum(), source, create_graph=True)
    loss = y.square().sum() + y.sum()
    return [y, *torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True)]


def assert_same(given, expected, tolerance):
    for a, b in zip(given, expected, strict=True):
        assert (a - b).norm() <= tolerance * b.norm() + 1e-13


@runs
@pytest.mark.parametrize("name", KERNELS)
def test_what_is_coupled_on_the_edges(name):
    plan, _ = layer(name).kernel.plan
    assert len(plan.places) == KERNELS[name][4]


@runs
@pytest.mark.parametrize(
    ("name", "where"), [*((k, "ragged") for k in KERNELS), *(("O(3)", g) for g in GRAPHS)]
)
def test_it_is_the_kernel_on_every_edge(name, where):
    conv = layer(name)
    assert_same(outputs(conv, where, "message"), outputs(conv, where, "kernel"), 1e-11)


@runs
@pytest.mark.parametrize("name", ["O(3)", "Lorentz"])
def test_second_derivatives(name):
    conv = layer(name)
    assert_same(outputs(conv, "bipartite", "auto", True), outputs(conv, "bipartite", "kernel", True), 1e-11)


@runs
def test_single_precision():
    expected = outputs(layer("O(3)"), "ragged", "kernel")
    given = outputs(layer("O(3)", torch.float32), "ragged", "auto")
    assert_same([x.double() for x in given], expected, 1e-5)


@runs
def test_a_weight_alone_is_trained():
    conv = layer("O(3)")
    for p in conv.parameters():
        p.requires_grad_(p is conv.kernel.weight[0])
    sources, targets, edges = GRAPHS["ragged"]
    x, pos = (t.detach() for t in inputs(conv, sources, targets)[:2])
    found = []
    for contraction in ("auto", "kernel"):
        conv.contraction = contraction
        y = conv(x, pos, ek.Neighbours.of(edges.to(DEVICE), sources, grouped=False))
        found.append(torch.autograd.grad(y.square().sum(), conv.kernel.weight[0]))
    assert_same(*found, 1e-12)


@runs
def test_nothing_of_the_size_of_nodes_times_width_is_kept():
    conv = layer("O(3)")
    sources, targets, edges = GRAPHS["ragged"]
    prepared = ek.Neighbours.of(edges.to(DEVICE), sources, targets, grouped=False)
    x, pos, _ = inputs(conv, sources, targets)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        conv(x, pos, prepared)
    plan, _ = conv.kernel.plan
    assert max(kept) < plan.sizes[0] * targets


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="where there are kernels they are used")
def test_without_kernels_there_is_no_plan():
    assert layer("O(3)").kernel.plan is None


# ---- without a GPU --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(INTERPRETED, reason="these tests are the ones that run in the interpreter")
@pytest.mark.parametrize("which", ["octahedral or weight or kept", pytest.param("", marks=pytest.mark.slow)])
def test_in_the_interpreter(which):
    out = interpreter(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", which, TRITON_INTERPRET="1"
    )
    assert " passed" in out and " failed" not in out


COMPILE = """
from triton.language import float32, float64
from emkernel.ops import _coupled_triton as kernels

for dtype, wide, ACC in (("fp32", "fp32", float32), ("bf16", "fp32", float32), ("fp64", "fp64", float64)):
    types = {n: "*" + dtype for n in ("M", "f", "g", "S", "out")} | {n: "*i64" for n in ("source", "spans")}
    types |= {n: "*" + wide for n in ("partial", "out_M", "out_f", "out_g")}
    types |= {n: "*i32" for n in ("table", "parts", "groups", "entries")}
    tile = dict(ACC=ACC, BLOCK_U=16, BLOCK_M=16, BLOCK_E=kernels.BLOCK_E)
    compile(kernels._sum_kernel, types, tile | dict(COLUMNS=13), 1)
    compile(kernels._grad_kernel, types, tile | dict(BLOCK_K=8), 4)
"""


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
@pytest.mark.parametrize("capability", [90, pytest.param(80, marks=pytest.mark.slow)])
def test_the_kernels_compile_for_a_gpu_that_is_not_here(capability, tmp_path):
    out = interpreter("-c", COMPILER + COMPILE, str(capability), TRITON_CACHE_DIR=str(tmp_path))
    assert len(out.splitlines()) == 3 * 2


@runs
def test_who_has_kernels():
    assert coupled.runs_on(torch.zeros(1, device=DEVICE))
