"""The implicit kernel and the point convolution: steerable for every group, one function in every contraction."""

import warnings
from functools import partial

import pytest
import torch
from oracles import act, equivariance_error, tolerance, without_settings
from tables import EVERY, TABLE, condition, group

from emkernel import Neighbours, RepError, Scalar, V, equivariant_basis, groups, irreps, knn_graph
from emkernel.nn import GridConv, ImplicitKernel, PointConv

SO3 = group("SO(3)")
every_group = pytest.mark.parametrize("name", EVERY)
CONTRACTIONS = ("aggregate", "message", "auto")
SMALL = {"width": 2, "hidden": 8, "layers": 1, "radial": 4, "cutoff": 3.0}


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def fields(g):
    return (2 * Scalar + V)(g), (Scalar + V + V.T)(g)


def double(module, seed=0):
    """Weights that are not special, in float64."""
    module.double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype) / max(1, p.shape[0]) ** 0.5)
    return module


def test_a_constant_kernel_is_warned_of(recwarn):
    """No function of a vector is invariant under Sp(2), and none of degree one couples vectors."""
    g = groups.Sp(2)
    with pytest.warns(UserWarning, match=r"from V to V is the same for every edge.*degree up to 1.*Sp\(2\)"):
        kernel = double(ImplicitKernel(V(g), V(g), degree=1))
    k = kernel(randn(5, 2))
    assert (k - k[:1]).abs().max() < 1e-14 < 1e-3 < k.abs().max()
    recwarn.clear()
    for reps, options in (((V, V), {"degree": 2}), ((Scalar, V), {}), ((Scalar, Scalar), {"edge_rep": Scalar(g)})):
        kernel = double(ImplicitKernel(*(r(g) for r in reps), **options))
        k = kernel(randn(5, 2), randn(5, 1) if "edge_rep" in options else None)
        assert (k - k[:1]).abs().max() > 1e-3
    assert not recwarn.list


def test_outputs_that_stay_zero_are_named():
    """The one-dimensional irreducible of D6h that changes sign in every mirror is a polynomial of degree six."""
    g = groups.get("D6h")
    far = next(r for r in irreps(g, degree=6) if r.label == "1h")
    args = (4 * Scalar)(g), (4 * Scalar + 2 * far)(g)
    with pytest.warns(UserWarning, match=r"^1h of the output .* stay zero: no kernel of degree up to 2 reaches them"):
        conv = double(PointConv(*args, degree=2, **SMALL))
    y = conv(randn(9, 4), randn(9, 3), GRAPHS["ragged"][2])
    assert (y[:, 4:] == 0).all() and (y[:, :4] != 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PointConv((4 * Scalar + 2 * far)(g), (4 * Scalar + 2 * far)(g), degree=2, **SMALL)  # by the term i = j
        PointConv(*args, degree=6, **SMALL)


# ---- graphs -----------------------------------------------------------------------------------------------------


def from_degrees(degrees, sources, seed=0):
    """Edges into target i from degrees[i] random sources, shuffled; sources repeat."""
    rng = torch.Generator().manual_seed(seed)
    target = torch.repeat_interleave(torch.arange(len(degrees)), torch.tensor(degrees))
    edges = torch.stack([torch.randint(0, sources, target.shape, generator=rng), target])
    return edges[:, torch.randperm(len(target), generator=rng)]


GRAPHS = {  # name -> (sources, targets, edge_index)
    "uniform degree": (9, 9, from_degrees([4] * 9, 9)),
    "sorted": (9, 9, torch.stack([torch.arange(18) % 9, torch.arange(18) // 2])),
    "ragged": (9, 9, from_degrees([1, 5, 2, 2, 7, 1, 3, 2, 4], 9)),
    "more than ten degrees": (16, 16, from_degrees([12, 3, 1, 8, 2, 15, 4, 6, 5, 7, 9, 10, 11, 0, 13, 14], 16)),
    "isolated nodes": (9, 9, from_degrees([0, 3, 0, 2, 2, 0, 3, 0, 0], 9)),
    "no edges": (5, 5, torch.zeros(2, 0, dtype=torch.long)),
    "one point": (1, 1, torch.zeros(2, 0, dtype=torch.long)),
    "one point and itself": (1, 1, torch.zeros(2, 1, dtype=torch.long)),
    "repeated edges": (4, 4, torch.tensor([[0, 0, 0, 1, 2, 2], [1, 1, 1, 3, 3, 3]])),
    "int32": (4, 4, torch.tensor([[3, 0, 1, 2], [0, 1, 1, 3]], dtype=torch.int32)),
    "bipartite": (9, 4, from_degrees([3, 0, 5, 1], 9)),
    "more targets than sources": (2, 7, from_degrees([1, 0, 2, 1, 3, 1, 0], 2)),
}  # fmt: skip
each_graph = pytest.mark.parametrize("graph", GRAPHS)


def inputs(g, rep_in, edge_rep, graph, seed=0):
    """(x, pos, edge_index, edge_attr), pairs on a bipartite graph."""
    sources, targets, edges = GRAPHS[graph]
    x, pos = randn(sources, rep_in.size, seed=seed), randn(sources, g.d, seed=seed + 1)
    attr = None if edge_rep is None else randn(edges.shape[1], edge_rep.size, seed=seed + 2)
    if sources != targets:
        x, pos = (x, randn(targets, rep_in.size, seed=seed + 3)), (pos, randn(targets, g.d, seed=seed + 4))
    return x, pos, edges, attr


def by_hand(conv, x, pos, edges, attr):
    """Equation 13 edge by edge, with the kernel as a matrix."""
    (xs, xt), (ps, pt) = (v if isinstance(v, tuple) else (v, v) for v in (x, pos))
    out = torch.zeros(len(pt), conv.rep_out.size, dtype=ps.dtype)
    degree = torch.bincount(edges[1].long(), minlength=len(pt))
    for e, (j, i) in enumerate(edges.long().T.tolist()):
        k = conv.kernel((pt[i] - ps[j])[None], None if attr is None else attr[e : e + 1])[0]
        out[i] += k @ xs[j] / (degree[i] if conv.aggr == "mean" else 1)
    return out if conv.self_term is None else out + conv.self_term(xt)


# ---- the kernel -------------------------------------------------------------------------------------------------


@every_group
def test_kernel_is_steerable_as_a_matrix(name):
    """k(g x, ρ_z(g) z) = ρ_out(g) k(x, z) ρ_in(g)^-1."""
    g = group(name)
    rep_in, rep_out = fields(g)
    for edge_rep in (None, (2 * Scalar)(g), *([(Scalar + V)(g)] if g.d < 5 else [])):
        kernel = double(ImplicitKernel(rep_in, rep_out, edge_rep, **SMALL))
        vec = randn(6, g.d)
        attr = None if edge_rep is None else randn(6, edge_rep.size, seed=1)
        k = kernel(vec, attr)
        assert k.shape == (6, rep_out.size, rep_in.size)
        assert k.abs().max() > 1e-3
        for a in g.sample(3, 2):
            left = kernel(act(V(g), a, vec), None if attr is None else act(edge_rep, a, attr))
            right = torch.as_tensor(rep_out.rho(a)) @ k @ torch.as_tensor(rep_in.rho(a.inverse))
            assert (left - right).abs().max() < 1e-10 * condition(name) ** 2 * max(1, right.abs().max())


def test_vec_of_the_kernel_transforms_in_the_maps():
    g = group("O(1,3)")
    rep_in, rep_out = fields(g)
    kernel = double(ImplicitKernel(rep_in, rep_out, **SMALL))
    vec, a = randn(4, 4), g.sample(1, 0)[0]
    moved = kernel(act(V(g), a, vec)).flatten(1)
    torch.testing.assert_close(moved, act(rep_in >> rep_out, a, kernel(vec).flatten(1)))


@pytest.mark.parametrize("name", ["SO(3)", "Th", "O(1,3)", "2T", "Borel", "mirror"])
def test_kernel_at_zero_is_an_intertwiner(name):
    g = group(name)
    rep_in, rep_out = fields(g)
    kernel = double(ImplicitKernel(rep_in, rep_out, (2 * Scalar)(g), **SMALL))
    k = kernel(torch.zeros(1, g.d, dtype=torch.float64), randn(1, 2))[0].detach().reshape(-1)
    basis = torch.as_tensor(equivariant_basis(rep_in, rep_out)).flatten(1)
    torch.testing.assert_close(basis.T @ (basis @ k), k)


def test_kernel_depends_on_everything_it_is_given():
    g = SO3
    edge_rep = (Scalar + V)(g)
    kernel = double(ImplicitKernel(V(g), V(g), edge_rep, **SMALL))
    vec, attr = randn(1, 3), randn(1, 4, seed=1)
    k = kernel(vec, attr)
    assert (kernel(2 * vec, attr) - k).abs().max() > 1e-3
    for i in range(4):
        other = attr.clone()
        other[0, i] += 1
        assert (kernel(vec, other) - k).abs().max() > 1e-4
    # the turn of an attribute about the edge is seen: products of x and z are formed
    axis = vec / vec.norm()
    turned = attr.clone()
    turned[:, 1:] = 2 * (attr[:, 1:] @ axis.T) * axis - attr[:, 1:]
    assert (kernel(vec, turned) - k).abs().max() > 1e-4


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("name", ["SO(3)", "octahedral", "O(1,3)", "D7", "shear"])
def test_kernel_of_any_degree(name, degree):
    g = group(name)
    kernel = double(ImplicitKernel(V(g), (Scalar + V)(g), degree=degree, **SMALL))
    error = equivariance_error(lambda v: kernel(v).flatten(1), [V(g)], V(g) >> (Scalar + V)(g), g)
    assert error < 1e-10


@pytest.mark.parametrize(("name", "degree", "rank"), [
    # invariants of the stabiliser of the point among the maps: 1, x x^T, and x cross where orientation is kept
    ("SO(3)", 2, 3), ("O(3)", 2, 2), ("O(1,3)", 2, 2), ("SO(2) about z", 1, 7), ("SO(2) about z", 2, 9),
    ("U(1)", 1, 2), ("U(1)", 2, 4),
    # no stabiliser: all maps, once the polynomials hold each irreducible of V x V* often enough
    ("C3", 1, 4), ("D7", 2, 2), ("T", 1, 3), ("T", 2, 7), ("T", 3, 9), ("2T", 1, 4), ("2T", 2, 16), ("SU(2)", 2, 16),
])  # fmt: skip
def test_kernels_at_one_point_reach_all_that_is_steerable(name, degree, rank):
    """Their span over random weights, from vectors to vectors, has the dimension of a count by hand."""
    g = group(name)
    kernel = ImplicitKernel(V(g), V(g), degree=degree, **{**SMALL, "width": 4})
    point = randn(1, g.d, seed=8)
    rows = torch.cat([double(kernel, seed)(point).flatten(1) for seed in range(2 * g.d**2)]).detach()
    assert torch.linalg.matrix_rank(rows, rtol=1e-8) == rank


def test_kernel_without_a_path_is_refused():
    g = group("O(3)")
    with pytest.raises(RepError, match="no equivariant kernel"):
        ImplicitKernel(Scalar(g), _pseudoscalar(g))


def _pseudoscalar(g):
    from emkernel import irreps

    return next(r for r in irreps(g, 3) if r.size == 1 and not r.is_trivial)


@pytest.mark.parametrize(("argument", "value"), [
    ("width", 0), ("hidden", 0), ("degree", 0), ("radial", 0), ("cutoff", 0.0), ("cutoff", -1),
    ("cutoff", float("nan")), ("cutoff", "far"),
])  # fmt: skip
def test_impossible_sizes_are_refused(argument, value):
    with pytest.raises(ValueError, match=argument):
        ImplicitKernel(V(SO3), V(SO3), **{argument: value})


def test_kernel_checks_its_edges():
    kernel = ImplicitKernel(V(SO3), V(SO3), (2 * Scalar)(SO3), **SMALL)
    vec, attr = torch.randn(4, 3), torch.randn(4, 2)
    assert kernel(vec, attr).shape == (4, 3, 3)
    assert kernel(vec[:0], attr[:0]).shape == (0, 3, 3)
    for wrong in ((vec[:, :2], attr), (vec[0], attr[0]), (vec, attr[:3])):
        with pytest.raises((ValueError, RepError), match="expected"):
            kernel(*wrong)
    with pytest.raises(RepError, match="edge_attr is missing"):
        kernel(vec)
    with pytest.raises(RepError, match="built without edge_rep"):
        ImplicitKernel(V(SO3), V(SO3), **SMALL)(vec, attr)
    with pytest.raises(RepError, match=r"edge_attr has shape \(4, 3\), expected \(\.\.\., 2\)"):
        kernel(vec, torch.randn(4, 3))
    with pytest.raises(TypeError, match="dtype"):
        kernel(vec, attr.double())


def test_kernel_is_smooth_through_zero():
    for name in ("SO(3)", "O(1,3)", "shear"):
        g = group(name)
        kernel = double(ImplicitKernel(V(g), V(g), **SMALL))
        vec = torch.zeros(1, g.d, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(kernel, (vec,))
        assert torch.autograd.gradgradcheck(kernel, (vec,))


# ---- the convolution --------------------------------------------------------------------------------------------


def conv_error(conv, g, graph, *, dtype=torch.float64, with_target=True):
    """Equivariance error of all arguments together: features, positions, attributes, of both sides."""
    x, pos, edges, attr = inputs(g, conv.rep_in, conv.edge_rep, graph)
    reps = [conv.rep_in, V(g)] + ([] if attr is None else [conv.edge_rep])

    def moved(a, value, rep):
        if isinstance(value, tuple):
            return tuple(None if v is None else moved(a, v, rep) for v in value)
        return (value if a is None else act(rep, a, value)).to(dtype)

    if isinstance(x, tuple) and not with_target:
        x = (x[0], None)

    def run(a):
        args = [moved(a, v, r) for v, r in zip((x, pos, attr), reps)]
        return conv(args[0], args[1], edges, *args[2:])

    worst = 0.0
    with torch.no_grad():
        y = run(None)
        assert y.dtype == dtype
        for a in g.sample(3, 4):
            wanted = act(conv.rep_out, a, y)
            worst = max(worst, float((run(a).double() - wanted).abs().max() / wanted.abs().max()))
    return worst


@every_group
def test_conv_is_equivariant(name):
    """Invariant and steerable attributes, and none; sum and mean; one side and two."""
    g = group(name)
    rep_in, rep_out = fields(g)
    cases = [({"aggr": "sum"}, None, "ragged"), ({"aggr": "mean"}, (2 * Scalar)(g), "bipartite")]
    if g.d < 5:
        cases.append(({"aggr": "sum", "bias": False}, (Scalar + V)(g), "isolated nodes"))
    for options, edge_rep, graph in cases:
        conv = double(PointConv(rep_in, rep_out, edge_rep, **options, **SMALL))
        for dtype in (torch.float64, torch.float32):
            error = conv_error(conv.to(dtype), g, graph, dtype=dtype)
            assert error < tolerance(dtype, condition(name)), (options, str(edge_rep), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_conv_between_large_fields_is_equivariant(name):
    g = group(name)
    rep = (2 * Scalar + V + V**2)(g)
    conv = double(PointConv(rep, rep, (Scalar + V)(g), degree=3 if g.d < 4 else 2, **SMALL))
    assert conv_error(conv, g, "ragged") < tolerance(torch.float64)


@pytest.mark.parametrize("name", ["T", "SO(3)", "O(1,3)", "2T", "Borel", "S5", "skew D7"])
@pytest.mark.parametrize("contraction", ["kernel", *CONTRACTIONS])
def test_every_contraction_is_equivariant(name, contraction):
    g = group(name)
    edge_rep = (Scalar + V)(g) if g.d < 5 else Scalar(g)
    for options in ({}, {"self_interaction": False}, {"aggr": "mean"}, {"neighbours": 5.0}):
        conv = double(PointConv(*fields(g), edge_rep, contraction=contraction, **options, **SMALL))
        for graph in ("more than ten degrees", "bipartite"):
            assert conv_error(conv, g, graph) < 1e-10 * condition(name)
        assert conv_error(conv, g, "bipartite", with_target=False) < 1e-10 * condition(name)


def derivatives(conv, g, args, seed=3):
    """Value, gradients, and gradients of the gradients, with respect to all inputs and weights."""
    x, pos, edges, attr = args
    leaves = [
        v for pair in (x, pos, attr) for v in (pair if isinstance(pair, tuple) else (pair,)) if v is not None
    ]
    copies = iter([v.detach().clone().requires_grad_() for v in leaves])
    rebuilt = [
        None if v is None else tuple(next(copies) for _ in v) if isinstance(v, tuple) else next(copies)
        for v in (x, pos, attr)
    ]
    leaves = [v for pair in rebuilt for v in (pair if isinstance(pair, tuple) else (pair,)) if v is not None]
    weights = [p for p in conv.parameters() if p.numel()]
    out = conv(rebuilt[0], rebuilt[1], edges, rebuilt[2])
    loss = (out * randn(*out.shape, seed=seed).to(out.dtype)).sum() + out.square().sum()
    options = {"allow_unused": True, "materialize_grads": True}
    alone = torch.autograd.grad(loss, [*leaves, *weights], retain_graph=True, **options)
    first = torch.autograd.grad(loss, [*leaves, *weights], create_graph=True, **options)
    rtol = 1e-4 if out.dtype == torch.float32 else 1e-8
    for a, b in zip(alone, first):  # the derivative by hand, and the one that has derivatives itself
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol / 100 * largest(b))
    total = sum((d * randn(*d.shape, seed=i).to(d.dtype)).sum() for i, d in enumerate(first))
    second = torch.autograd.grad(total, [*leaves, *weights], allow_unused=True, materialize_grads=True)
    return out, first, second


def largest(values):
    return max(1.0, values.detach().abs().max().item() if values.numel() else 0.0)


@each_graph
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("aggr", ["sum", "mean"])
def test_contractions_are_one_function(graph, contraction, aggr):
    """Value, gradient and second derivative equal those of the kernel formed on every edge."""
    g = group("octahedral")
    edge_rep = (Scalar + V)(g)
    convs = [
        double(PointConv(*fields(g), edge_rep, contraction=c, aggr=aggr, **SMALL))
        for c in ("kernel", contraction)
    ]
    convs[1].load_state_dict(convs[0].state_dict())
    args = inputs(g, convs[0].rep_in, edge_rep, graph)
    expected, found = (derivatives(conv, g, args) for conv in convs)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)
    for order in (1, 2):
        for a, b in zip(found[order], expected[order]):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * largest(b))


@pytest.mark.parametrize(
    "name", ["C1000", "2T", "SO(3)", "O(1,3)", "SU(2)", "shear", "skew SO(3)", "trivial", "S5"]
)
def test_contractions_are_one_function_for_every_kind_of_group(name):
    g = group(name)
    edge_rep = (2 * Scalar)(g)
    reference = double(PointConv(*fields(g), edge_rep, contraction="kernel", **SMALL))
    args = inputs(g, reference.rep_in, edge_rep, "more than ten degrees")
    expected = derivatives(reference, g, args)
    for contraction in CONTRACTIONS:
        conv = PointConv(*fields(g), edge_rep, contraction=contraction, **SMALL).double()
        conv.load_state_dict(reference.state_dict())
        found = derivatives(conv, g, args)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-8, atol=1e-9 * condition(name))
        for order in (1, 2):
            for a, b in zip(found[order], expected[order]):
                torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * condition(name) * largest(b))


@each_graph
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_do_not_change_the_function(graph, chunk):
    """Fields that are mixed to more channels, so that both orders are taken; with derivatives."""
    g = group("D7")
    edge_rep = (2 * Scalar)(g)
    options = {**SMALL, "width": 5}
    reference = double(PointConv(*fields(g), edge_rep, contraction="kernel", **options))
    args = inputs(g, reference.rep_in, edge_rep, graph)
    expected = derivatives(reference, g, args)
    for contraction in ("aggregate", "message"):
        conv = PointConv(*fields(g), edge_rep, contraction=contraction, chunk=chunk, **options).double()
        conv.load_state_dict(reference.state_dict())
        assert any(bundle.folds for bundle in conv.kernel.bundles)
        found = derivatives(conv, g, args)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)
        for order in (1, 2):
            for a, b in zip(found[order], expected[order]):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * largest(b))


@pytest.mark.parametrize("name", ["D7", "SO(3)", "O(1,3)"])
def test_chunks_give_the_derivatives_of_several_copies(name):
    """Copies of an irreducible are a transposed view of the features, whose derivatives must not be lost."""
    g = group(name)
    rep = (2 * Scalar + 3 * V)(g)
    reference = double(PointConv(rep, rep, contraction="kernel", **SMALL))
    args = inputs(g, rep, None, "ragged")
    expected = derivatives(reference, g, args)
    for contraction in CONTRACTIONS:
        conv = PointConv(rep, rep, contraction=contraction, chunk=2, **SMALL).double()
        conv.load_state_dict(reference.state_dict())
        found = derivatives(conv, g, args)
        for order in (1, 2):
            for a, b in zip(found[order], expected[order]):
                torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * condition(name) * largest(b))


@pytest.mark.parametrize("graph", ["ragged", "bipartite", "isolated nodes"])
@pytest.mark.parametrize("chunk", [2, 1000])
def test_messages_of_bundled_inputs_are_the_same_function(graph, chunk):
    """Inputs that share a product on an edge and one that does not; hidden irreducibles of one field and of more."""
    g = group("octahedral")
    rep_in, rep_out = (8 * Scalar + 8 * V)(g) + irreps(g, 2)[2], (Scalar + V)(g)
    options = {**SMALL, "width": 5, "bilinear": False}
    reference = double(PointConv(rep_in, rep_out, V(g), contraction="kernel", **options))
    args = inputs(g, rep_in, V(g), graph)
    expected = derivatives(reference, g, args)
    conv = PointConv(rep_in, rep_out, V(g), contraction="message", chunk=chunk, **options).double()
    conv.load_state_dict(reference.state_dict())
    assert [len(bundle.inputs) for bundle in conv.kernel.bundles] == [2, 1]
    assert sorted(conv.kernel.fields) == [1, 1, 2, 5]
    found = derivatives(conv, g, args)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)
    for order in (1, 2):
        for a, b in zip(found[order], expected[order]):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * largest(b))


def test_transforms_of_functions_see_through_the_convolution():
    """torch.func and forward-mode derivatives, chunk by chunk or not."""
    g = group("D7")
    conv = double(PointConv(*fields(g), **{**SMALL, "width": 5}, chunk=2))
    x, pos, edges, _ = inputs(g, conv.rep_in, None, "ragged")

    def loss(x, pos):
        return conv(x, pos, edges).square().sum()

    copies = [v.clone().requires_grad_() for v in (x, pos)]
    expected = torch.autograd.grad(loss(*copies), copies)
    for a, b in zip(torch.func.grad(loss, (0, 1))(x, pos), expected):
        torch.testing.assert_close(a, b)
    tangents = randn(*x.shape, seed=5), randn(*pos.shape, seed=6)
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(v, t) for v, t in zip((x, pos), tangents)]
        along = torch.autograd.forward_ad.unpack_dual(loss(*duals)).tangent
    torch.testing.assert_close(along, sum((t * e).sum() for t, e in zip(tangents, expected)))


@each_graph
def test_ungrouped_edges_give_the_same_function(graph):
    """As on a GPU, where nothing about the graph is read back; with derivatives."""
    g = group("D7")
    conv = double(PointConv(*fields(g), (2 * Scalar)(g), **{**SMALL, "width": 5}))
    x, pos, edges, attr = inputs(g, conv.rep_in, conv.edge_rep, graph)
    sources, targets, _ = GRAPHS[graph]
    expected, found = (
        derivatives(conv, g, (x, pos, Neighbours.of(edges, sources, targets, grouped=grouped), attr))
        for grouped in (True, False)
    )
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-10)
    for order in (1, 2):
        for a, b in zip(found[order], expected[order]):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * largest(b))


@each_graph
def test_contractions_agree_in_single_precision(graph):
    g = SO3
    convs = [PointConv(*fields(g), Scalar(g), contraction=c, **SMALL) for c in ("kernel", *CONTRACTIONS)]
    x, pos, edges, attr = inputs(g, convs[0].rep_in, Scalar(g), graph)
    x, pos = (tuple(u.float() for u in v) if isinstance(v, tuple) else v.float() for v in (x, pos))
    outs = []
    for conv in convs:
        conv.load_state_dict(convs[0].state_dict())
        outs.append(conv(x, pos, edges, attr.float()))
    for out in outs[1:]:
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, outs[0], rtol=1e-5, atol=1e-5)


@each_graph
@pytest.mark.parametrize("aggr", ["sum", "mean"])
def test_conv_is_the_sum_of_equation_13(graph, aggr):
    g = group("T")
    conv = double(PointConv(*fields(g), (2 * Scalar)(g), aggr=aggr, **SMALL))
    args = inputs(g, conv.rep_in, conv.edge_rep, graph)
    torch.testing.assert_close(conv(*args), by_hand(conv, *args))


@pytest.mark.parametrize("contraction", ["kernel", *CONTRACTIONS])
@pytest.mark.parametrize(
    ("name", "has_inversion"),
    [
        ("C3", False),
        ("SO(2) about z", False),
        ("T", False),
        ("octahedral", False),
        ("C4", True),
        ("O(3)", True),
        ("Th", True),
    ],
)
def test_edge_vectors_point_from_source_to_target(name, has_inversion, contraction):
    """With the sign flipped the result is another one, unless -1 is in the group and acts alike on both sides."""
    g = group(name)
    conv = double(PointConv(V(g), V(g), contraction=contraction, self_interaction=False, **SMALL))
    pos, x = randn(2, g.d), randn(2, g.d, seed=1)
    edges = torch.tensor([[0], [1]])
    out = conv(x, pos, edges)
    torch.testing.assert_close(out[1], conv.kernel((pos[1] - pos[0])[None])[0] @ x[0])
    assert out[0].abs().max() == 0
    flipped = conv.kernel((pos[0] - pos[1])[None])[0] @ x[0]
    if has_inversion:
        torch.testing.assert_close(out[1], flipped)
    else:
        assert (out[1] - flipped).abs().max() > 1e-3 * out.abs().max()


def test_gradients_are_exact():
    g = group("C3")
    conv = double(PointConv(V(g), V(g), width=1, hidden=2, layers=1, radial=2, cutoff=3.0))
    edges = torch.tensor([[0, 1, 2], [1, 1, 0]])
    x, pos = randn(3, 2).requires_grad_(), randn(3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, pos: conv(x, pos, edges), (x, pos))
    assert torch.autograd.gradgradcheck(lambda x, pos: conv(x, pos, edges), (x, pos))


@pytest.mark.parametrize("name", ["T", "SO(3)", "O(1,3)", "SU(2)", "Borel", "trivial", "SL(2)"])
@pytest.mark.parametrize("attributes", [None, 2 * Scalar, Scalar + V], ids=["none", "invariant", "steerable"])
def test_every_parameter_is_used(name, attributes):
    """Training on several processes needs a gradient for each."""
    g = group(name)
    conv = double(PointConv(*fields(g), None if attributes is None else attributes(g), **SMALL))
    conv(*inputs(g, conv.rep_in, conv.edge_rep, "ragged")).square().sum().backward()
    unused = [
        k for k, p in conv.named_parameters() if p.numel() and (p.grad is None or not (p.grad != 0).any())
    ]
    assert unused == []


# ---- symmetries of sets of points -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conv():
    return double(PointConv(*fields(SO3), (2 * Scalar)(SO3), **SMALL))


def test_translations_do_not_matter(conv):
    x, pos, edges, attr = inputs(SO3, conv.rep_in, conv.edge_rep, "ragged")
    torch.testing.assert_close(conv(x, pos + 100, edges, attr), conv(x, pos, edges, attr))


def test_order_of_nodes_and_edges_does_not_matter(conv):
    x, pos, edges, attr = inputs(SO3, conv.rep_in, conv.edge_rep, "more than ten degrees")
    y = conv(x, pos, edges, attr)
    rng = torch.Generator().manual_seed(7)
    shuffled = torch.randperm(edges.shape[1], generator=rng)
    torch.testing.assert_close(conv(x, pos, edges[:, shuffled], attr[shuffled]), y)
    order = torch.randperm(len(x), generator=rng)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(x))
    torch.testing.assert_close(conv(x[order], pos[order], place[edges], attr), y[order])


def test_clouds_in_a_batch_do_not_mix(conv):
    one, two = (inputs(SO3, conv.rep_in, conv.edge_rep, graph) for graph in ("ragged", "isolated nodes"))
    both = [torch.cat([a, b]) for a, b in zip((one[0], one[1], one[3]), (two[0], two[1], two[3]))]
    edges = torch.cat([one[2], two[2] + len(one[0])], 1)
    torch.testing.assert_close(conv(both[0], both[1], edges, both[2]), torch.cat([conv(*one), conv(*two)]))


def test_a_repeated_edge_counts_twice(conv):
    x, pos, _, attr = inputs(SO3, conv.rep_in, conv.edge_rep, "repeated edges")
    twice, once = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0], [1]])
    a = attr[:1]
    single = conv(x, pos, once, a) - conv.self_term(x)
    torch.testing.assert_close(conv(x, pos, twice, a.repeat(2, 1)) - conv.self_term(x), 2 * single)


def test_mean_divides_by_the_degree_and_sum_does_not():
    sums, means = (
        double(PointConv(V(SO3), V(SO3), aggr=a, self_interaction=False, **SMALL)) for a in ("sum", "mean")
    )
    means.load_state_dict(without_settings(sums))
    x, pos, edges, _ = inputs(SO3, V(SO3), None, "isolated nodes")
    degree = torch.bincount(edges[1], minlength=9)[:, None]
    torch.testing.assert_close(sums(x, pos, edges), means(x, pos, edges) * degree)
    assert means(x, pos, edges)[degree[:, 0] == 0].abs().max() == 0


def test_expected_neighbours_scale_the_sum():
    plain, scaled = (
        double(PointConv(V(SO3), V(SO3), neighbours=n, self_interaction=False, **SMALL)) for n in (1.0, 16.0)
    )
    scaled.load_state_dict(without_settings(plain))
    args = inputs(SO3, V(SO3), None, "ragged")[:3]
    torch.testing.assert_close(4 * scaled(*args), plain(*args))
    with pytest.raises(ValueError, match="neighbours"):
        PointConv(V(SO3), V(SO3), neighbours=0)


# ---- two sides, prepared graphs ---------------------------------------------------------------------------------


def test_two_equal_sides_are_one(conv):
    x, pos, edges, attr = inputs(SO3, conv.rep_in, conv.edge_rep, "ragged")
    y = conv(x, pos, edges, attr)
    torch.testing.assert_close(conv((x, x), (pos, pos), edges, attr), y)
    torch.testing.assert_close(conv((x, x), pos, edges, attr), y)
    torch.testing.assert_close(conv(x, pos, edges, attr, size=(9, 9)), y)
    torch.testing.assert_close(conv([x, None], [pos, pos], edges, attr), y - conv.self_term(x))


def test_targets_without_features_have_no_self_term(conv):
    (x, target), pos, edges, attr = inputs(SO3, conv.rep_in, conv.edge_rep, "bipartite")
    with_target, without = conv((x, target), pos, edges, attr), conv((x, None), pos, edges, attr)
    torch.testing.assert_close(with_target, without + conv.self_term(target))
    torch.testing.assert_close(conv(x, pos, edges, attr), without)


def test_graphs_take_the_path_they_are_meant_for():
    prepared = {name: Neighbours.of(edges, n, m) for name, (n, m, edges) in GRAPHS.items()}
    assert [name for name, graph in prepared.items() if graph.position is not None] == [
        "more than ten degrees"
    ]
    assert len(prepared["uniform degree"].groups) == len(prepared["sorted"].groups) == 1
    assert len(prepared["ragged"].groups) == 6
    assert prepared["sorted"].order is None
    assert prepared["uniform degree"].order is not None
    assert prepared["no edges"].groups == ()
    wide = prepared["more than ten degrees"]
    assert sum(n * k for n, k in wide.groups) == wide.padded_source.shape[0] <= 1.25 * wide.num_edges


@each_graph
def test_a_prepared_graph_gives_the_same(conv, graph):
    x, pos, edges, attr = inputs(SO3, conv.rep_in, conv.edge_rep, graph)
    sources, targets, _ = GRAPHS[graph]
    prepared = Neighbours.of(edges, sources, targets)
    assert prepared.num_edges == edges.shape[1]
    torch.testing.assert_close(conv(x, pos, prepared, attr), conv(x, pos, edges, attr))
    torch.testing.assert_close(conv(x, pos, prepared.sorted, prepared.sort(attr)), conv(x, pos, edges, attr))


def test_graphs_of_the_library_are_accepted(conv):
    pos, x = randn(20, 3), randn(20, conv.rep_in.size, seed=1)
    edges = knn_graph(pos, 4)
    attr = randn(edges.shape[1], 2, seed=2)
    torch.testing.assert_close(conv(x, pos, edges, attr), by_hand(conv, x, pos, edges, attr))


# ---- other reductions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggr", ["max", "min"])
def test_componentwise_extremes_of_vectors_are_refused(aggr):
    for rep in (V(SO3), (Scalar + V)(SO3), (V**2)(group("Th")), V(group("D7")), V(group("SL(2)"))):
        with pytest.raises(RepError, match="does not commute"):
            PointConv(rep, rep, aggr=aggr)


@pytest.mark.parametrize("aggr", ["max", "min"])
@pytest.mark.parametrize(("name", "rep_out"), [
    ("SO(3)", 3 * Scalar), ("Th", Scalar), ("O(1,3)", 2 * Scalar), ("S5", V), ("S5", Scalar + 2 * V), ("trivial", V),
])  # fmt: skip
def test_extremes_are_equivariant_where_components_are_permuted(name, rep_out, aggr):
    g = group(name)
    conv = double(PointConv(fields(g)[0], rep_out(g), aggr=aggr, **SMALL))
    for graph in ("ragged", "isolated nodes", "no edges"):
        assert conv_error(conv, g, graph) < 1e-10
    x, pos, edges, _ = inputs(g, conv.rep_in, None, "isolated nodes")
    lonely = torch.bincount(edges[1], minlength=9) == 0
    torch.testing.assert_close(conv(x, pos, edges)[lonely], conv.self_term(x)[lonely])


def test_unknown_options_are_refused():
    for option in ({"aggr": "median"}, {"contraction": "fast"}, {"backend": "numpy"}):
        with pytest.raises(ValueError, match=next(iter(option))):
            PointConv(V(SO3), V(SO3), **option)
    grid, vector = partial(GridConv, kernel_size=3), V(groups.O(2))
    for layer, rep in ((PointConv, V(SO3)), (grid, vector)):
        with pytest.raises(TypeError, match="Conv has no option 'widht' .*'implicit'; did you mean 'width'.*, cutoff"):
            layer(rep, rep, widht=3)
        with pytest.raises(TypeError, match="no option 'hidden' .*'fixed'.* bias.*; of its kernel degree, rings"):
            layer(rep, rep, kernel="fixed", hidden=3)
    with pytest.raises(TypeError, match="PointConv has no option 'agr' .*; did you mean 'aggr'"):
        PointConv(V(SO3), V(SO3), agr="mean")


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "message"), [
    (lambda: PointConv(V, V(SO3)), "not bound"), (lambda: PointConv(V(SO3), V(SO3), Scalar), "not bound"),
    (lambda: PointConv(V(SO3), V(group("O(3)"))), "one group"),
    (lambda: PointConv(V(SO3), V(SO3), V(group("O(3)"))), "one group"), (lambda: PointConv(V(SO3), 3), "must be a Rep"),
    (lambda: ImplicitKernel(V(SO3), V(SO3), "V"), "must be a Rep"),
    (lambda: PointConv(V(SO3), 0 * V(SO3)), "no components"),
    (lambda: PointConv(V(SO3), V(SO3), 0 * V(SO3)), "no components"),
])  # fmt: skip
def test_representations_must_be_bound_to_one_group(build, message):
    with pytest.raises(RepError, match=message):
        build()


EDGES = torch.tensor([[0, 1, 2], [1, 2, 3]])


def wrong(**changed):
    """Arguments of a good call, some of them replaced."""
    good = {"x": randn(4, 5), "pos": randn(4, 3), "edge_index": EDGES, "edge_attr": randn(3, 2)}
    return {**good, **changed}


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (wrong(x=randn(4, 4)), RepError, r"x has shape \(4, 4\), expected \(\.\.\., 5\)"),
    (wrong(x=randn(3, 5)), ValueError, "one feature vector"),
    (wrong(x=randn(2, 4, 5)), ValueError, "one feature vector"),
    (wrong(x=randn(4, 5).float()), TypeError, "dtype torch.float32, the layer torch.float64"),
    (wrong(x=torch.ones(4, 5, dtype=torch.long)), TypeError, "floating"),
    (wrong(x=None), TypeError, "must be a tensor"),
    (wrong(pos=randn(4, 2)), ValueError, r"pos must be \(N, 3\)"),
    (wrong(pos=randn(4, 3).float()), TypeError, "pos has dtype"),
    (wrong(pos=randn(12)), ValueError, r"pos must be \(N, 3\)"),
    (wrong(pos=None), ValueError, r"pos must be \(N, 3\)"),
    (wrong(edge_index=EDGES.T), ValueError, "source in row 0"),
    (wrong(edge_index=EDGES.double()), ValueError, "integer"),
    (wrong(edge_index=EDGES.tolist()), ValueError, r"\(2, E\) tensor"),
    (wrong(edge_index=EDGES + 1), IndexError, r"edge_index\[1\] \(target\) holds 4, but there are 4"),
    (wrong(edge_index=EDGES - 1), IndexError, r"edge_index\[0\] \(source\) holds -1"),
    (wrong(edge_attr=None), RepError, "edge_attr is missing"),
    (wrong(edge_attr=randn(2, 2)), ValueError, "2 rows for 3 edges"),
    (wrong(edge_attr=randn(3, 3)), RepError, r"edge_attr has shape \(3, 3\), expected \(\.\.\., 2\)"),
    (wrong(edge_attr=randn(3, 2).float()), TypeError, "edge_attr has dtype"),
    (wrong(size=(4, 5)), ValueError, "size="),
    (wrong(x=(randn(4, 5), randn(2, 5)), pos=(randn(4, 3), randn(3, 3))), ValueError, r"\(2, 5\) and pos.* \(3, 3\)"),
    (wrong(x=(randn(4, 5), randn(4, 6))), RepError, r"x\[1\] \(target\) has shape"),
    (wrong(pos=(randn(4, 3), randn(4, 2))), ValueError, r"pos\[1\] \(target\) must be"),
    (wrong(pos=(randn(4, 3), randn(3, 3))), IndexError, "target"),
    (wrong(edge_index=Neighbours.of(EDGES, 5)), ValueError, "prepared graph"),
])  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(conv, arguments, error, message):
    conv(**wrong())
    with pytest.raises(error, match=message):
        conv(**arguments)


def test_attributes_without_a_representation_are_refused():
    plain = double(PointConv(*fields(SO3), **SMALL))
    plain(randn(4, 5), randn(4, 3), EDGES)
    with pytest.raises(RepError, match="built without edge_rep"):
        plain(randn(4, 5), randn(4, 3), EDGES, randn(3, 2))


# ---- precision and devices --------------------------------------------------------------------------------------


def test_autocast_is_allowed():
    conv = PointConv(*fields(SO3), **SMALL)
    x, pos, edges, _ = inputs(SO3, conv.rep_in, None, "ragged")
    x, pos = x.float(), pos.float()
    with torch.autocast("cpu", torch.bfloat16):
        low = conv(x, pos, edges)
    high = conv(x, pos, edges)
    assert (low.float() - high).abs().max() < 0.05 * high.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_graph
@pytest.mark.parametrize("contraction", ["kernel", *CONTRACTIONS])
def test_a_gpu_gives_the_same(graph, contraction):
    g = SO3
    conv = double(PointConv(*fields(g), (Scalar + V)(g), contraction=contraction, **SMALL))
    args = inputs(g, conv.rep_in, conv.edge_rep, graph)
    expected = derivatives(conv, g, args)
    there = [tuple(u.cuda() for u in v) if isinstance(v, tuple) else v.cuda() for v in args]
    y = conv.cuda()(*there)
    torch.testing.assert_close(y.cpu(), expected[0], rtol=1e-9, atol=1e-9)
    loss = (y * randn(*y.shape, seed=3).cuda()).sum() + y.square().sum()
    weights = [p for p in conv.parameters() if p.numel()]
    for a, b in zip(
        torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True),
        expected[1][-len(weights) :],
    ):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-8, atol=1e-8)


def test_conv_says_what_it_is(conv):
    text = repr(conv)
    assert "2Scalar + V -> Scalar + V + V*" in text
    assert "aggr='sum'" in text
    assert set(TABLE) < set(EVERY)
