"""The contraction that a compiler does not look into equals the kernel on every edge, on whatever edges come."""

import pytest
import torch

import emkernel as ek
from emkernel import Scalar, V, groups, nn
from emkernel.ops import opaque as module
from emkernel.ops.neighbours import EXACT_DEGREES


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def edges(sources, targets, count, seed=0):
    return torch.stack([torch.randint(n, (count,), generator=draw(seed)) for n in (sources, targets)])


def ladder(sources, targets):
    """Target i has i + 1 neighbours: more degrees than are kept apart."""
    target = torch.arange(targets).repeat_interleave(torch.arange(1, targets + 1))
    return torch.stack([torch.arange(len(target)) % sources, target])


GRAPHS = {
    "ragged": (9, 9, edges(9, 9, 40)),
    "isolated nodes": (9, 9, edges(4, 3, 12)),
    "bipartite": (3, 7, edges(3, 7, 25)),
    "one degree": (9, 9, ek.knn_graph(torch.randn(9, 3, generator=draw()), 4)),
    "many degrees": (5, EXACT_DEGREES + 9, ladder(5, EXACT_DEGREES + 9)),
    "no edges": (3, 4, edges(3, 4, 0)),
    "no targets": (3, 0, edges(3, 1, 0)),
}
LAYERS = {
    "O(3)": lambda: (groups.O(3), 3 * Scalar + 2 * V, 2 * Scalar + V + V * V, {}),
    "fixed": lambda: (groups.O(3), 3 * Scalar + 2 * V, 2 * Scalar + 3 * V, {"kernel": "fixed"}),
    "Lorentz": lambda: (groups.SO13(), Scalar + 2 * V, 2 * Scalar + V, {}),
    "octahedral": lambda: (groups.Oh(), 2 * Scalar + V * V, Scalar + V, {"width": 12}),
    "several fields": lambda: (groups.SO2z(), 9 * Scalar + 8 * V, 2 * Scalar + V, {"width": 12}),
    "mean": lambda: (groups.O(3), Scalar + V, Scalar + V, {"aggr": "mean"}),
    "two at a time": lambda: (groups.O(3), Scalar + V, Scalar + V, {"chunk": 2}),
}


def layer(name, dtype=torch.float64, **more):
    torch.manual_seed(0)
    group, rep_in, rep_out, options = LAYERS[name]()
    options = {"bias": False, "self_interaction": False} | options | more
    return nn.PointConv(rep_in(group), rep_out(group), **options).to(dtype)


def inputs(conv, sources, targets):
    dtype, d = conv.kernel.weight[0].dtype, conv.rep_in.group.d
    sizes = (sources, conv.rep_in.size), (sources, d), (targets, d)
    return [torch.randn(*s, generator=draw(i), dtype=dtype).requires_grad_() for i, s in enumerate(sizes)]


@pytest.fixture
def compiling(monkeypatch):
    """As inside torch.compile, on edges as they come, but for the compiler; what ran there is counted."""
    calls = []
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    count = module._Call.__init__
    monkeypatch.setattr(module._Call, "__init__", lambda *args: (calls.append(1), count(*args))[1])
    return calls


def outputs(conv, name, second=False):
    sources, targets, given = GRAPHS[name]
    x, source, target = leaves = inputs(conv, sources, targets)
    y = conv((x, None), (source, target), given)
    leaves += [p for p in conv.parameters() if p.requires_grad]
    if second:
        (y,) = torch.autograd.grad(y.square().sum(), source, create_graph=True)
    loss = y.square().sum() + y.sum()
    return [y, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


def assert_same(found, expected, tolerance=1e-11):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(b.detach().abs().sum())))


@pytest.mark.parametrize("contraction", ["auto", "aggregate", "message"])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_the_kernel_on_every_edge(name, contraction, compiling):
    conv = layer(name, contraction=contraction)
    found = outputs(conv, "ragged")
    assert len(compiling) == 2
    conv.contraction = "kernel"
    assert_same(found, outputs(conv, "ragged"))


@pytest.mark.parametrize("where", GRAPHS)
def test_edges_of_any_kind(where, compiling):
    conv = layer("O(3)")
    found = outputs(conv, where)
    assert len(compiling) == 2
    conv.contraction = "kernel"
    assert_same(found, outputs(conv, where))


@pytest.mark.parametrize("where", ["ragged", "isolated nodes", "many degrees"])
def test_second_derivatives(where, compiling):
    conv = layer("O(3)")
    found = outputs(conv, where, second=True)
    conv.contraction = "kernel"
    assert_same(found, outputs(conv, where, second=True), 1e-9)


def test_a_weight_alone_is_trained(compiling):
    conv = layer("O(3)").requires_grad_(False)
    sources, targets, given = GRAPHS["ragged"]
    x, source, target = (x.detach() for x in inputs(conv, sources, targets))
    weight = conv.kernel.weight[0].requires_grad_()
    found = torch.autograd.grad(conv((x, None), (source, target), given).square().sum(), weight)
    conv.contraction = "kernel"
    assert_same(found, torch.autograd.grad(conv((x, None), (source, target), given).square().sum(), weight))


def test_single_and_half_precision(compiling):
    conv = layer("O(3)", torch.float32)
    found = outputs(conv, "ragged")[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = outputs(conv, "ragged")[0]
    conv.contraction = "kernel"
    expected = outputs(conv, "ragged")[0]
    assert_same([found], [expected], 1e-5)
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_layers_in_turn_and_threads_do_not_mix(compiling):
    """What one keeps is not taken for another's, though all have the same structure."""
    torch.manual_seed(1)
    convs = [layer("O(3)") for _ in range(3)]
    with torch.no_grad():
        for i, conv in enumerate(convs):
            for p in conv.parameters():
                p.mul_(1 + i)
    first = [outputs(conv, "ragged") for conv in convs]
    del convs[1]
    again = [outputs(conv, "ragged") for conv in convs]
    assert_same(again[0], first[0])
    assert_same(again[1], first[2])


def test_what_is_kept_is_bounded(compiling, monkeypatch):
    monkeypatch.setattr(module, "LAYERS", 2)
    monkeypatch.setattr(module, "_kept", {})
    expected = outputs(layer("O(3)"), "ragged")
    for _ in range(5):
        assert_same(outputs(layer("O(3)"), "ragged"), expected)
        assert len(module._kept) <= 2


def test_a_batch_of_functions(compiling):
    conv = layer("O(3)").requires_grad_(False)
    sources, targets, given = GRAPHS["ragged"]
    x, source, target = (x.detach() for x in inputs(conv, sources, targets))
    many = torch.stack([x, 2 * x, -x])
    found = torch.func.vmap(lambda x: conv((x, None), (source, target), given))(many)
    assert_same([found], [torch.stack([conv((x, None), (source, target), given) for x in many])])


def test_the_operation_is_what_it_says(compiling, monkeypatch):
    """torch's own checks of schema, shapes, derivatives and of its use by a compiler, for sizes that vary."""
    taken, run = [], module._opaque
    monkeypatch.setattr(module, "_opaque", lambda *args: (taken.append(args), run(*args))[1])
    conv = layer("O(3)")
    sources, targets, given = GRAPHS["ragged"]
    x, source, target = inputs(conv, sources, targets)
    conv((x, None), (source, target), given)
    monkeypatch.undo()
    (args,) = taken
    args = [[x.detach().requires_grad_() for x in args[0]], *args[1:]]
    torch.library.opcheck(module._opaque, args)


def test_an_exported_program():
    """It runs elsewhere, on other sizes, and forces can be trained on."""
    conv = layer("O(3)", self_interaction=True)
    nodes, count = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)

    def given(n, m):
        x = torch.randn(n, conv.rep_in.size, generator=draw(), dtype=torch.float64)
        return x, torch.randn(n, 3, generator=draw(1), dtype=torch.float64), edges(n, n, m, 2)

    program = torch.export.export(
        conv, given(9, 40), dynamic_shapes=({0: nodes}, {0: nodes}, {1: count}), strict=False
    )
    assert "emkernel.opaque" in str(program)

    def force(f, x, pos, index):
        pos = pos.requires_grad_()
        y = f(x, pos, index)
        (first,) = torch.autograd.grad(y.square().sum(), pos, create_graph=True)
        return [y, first, *torch.autograd.grad(first.square().sum(), pos)]

    assert_same(force(program.module(), *given(17, 66)), force(conv, *given(17, 66)), 1e-9)
