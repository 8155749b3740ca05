"""Layers: equivariant for every group, complete, and strict about what they are given."""

import copy

import numpy as np
import pytest
import torch
from oracles import act, equivariance_error, tolerance
from tables import EVERY, TABLE, condition, group

from emkernel import RepError, Scalar, V, equivariant_basis, irreps
from emkernel.nn import EMLP, BatchNorm, Bilinear, Gate, InvariantPool, Invariants, Linear
from emkernel.ops.segment import available_backends, segment_reduce

each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


every_group = pytest.mark.parametrize("name", TABLE)


def fields(g, square_up_to=4):
    """Two representations of a group, the second larger."""
    return (2 * Scalar + V + V.T)(g), (Scalar + 2 * V + (V**2 if g.d <= square_up_to else Scalar))(g)


def gate_without_scalars(g):
    return Gate((2 * V)(g)), [(2 * V)(g)], (2 * V)(g)


def bilinear(g):
    a, b = fields(g, square_up_to=3)
    return Bilinear(a, V(g), b, width=2), [a, V(g)], b


LAYERS = {  # name -> (layer, representations of its arguments, of its result)
    "Linear": lambda g: (Linear(*fields(g)), [fields(g)[0]], fields(g)[1]),
    "Gate": lambda g: (Gate(fields(g)[1]), [fields(g)[1]], fields(g)[1]),
    "Gate without scalars": gate_without_scalars,
    "BatchNorm": lambda g: (BatchNorm(fields(g)[1]), [fields(g)[1]], fields(g)[1]),
    "Bilinear": bilinear,
    "EMLP": lambda g: (EMLP(*fields(g, 3), hidden=2), [fields(g, 3)[0]], fields(g, 3)[1]),
}


def randomise(layer, seed=0):
    """Also what starts at zero or one."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * (0.5 if p.ndim else 1))
    return layer


def features(rep, n=6, seed=0, dtype=torch.float64):
    return torch.randn(n, rep.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


# ---- equivariance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_equivariant(kind, name):
    g = group(name)
    layer, reps_in, rep_out = LAYERS[kind](g)
    randomise(layer)
    for dtype in (torch.float64, torch.float32):
        layer.to(dtype)
        for training in (True, False) if kind == "BatchNorm" else (False,):
            layer.train(training)
            error = equivariance_error(layer, reps_in, rep_out, g, dtype=dtype)
            assert error < tolerance(dtype, condition(name)), (dtype, training)


@pytest.mark.parametrize("name", ["C3", "Th", "2T", "SO(3)", "O(1,3)", "shear", "D7"])
@pytest.mark.parametrize("wrong", [
    lambda x: torch.relu(x), lambda x: x + 1, lambda x: x.flip(-1), lambda x: x * x[..., :1],
    lambda x: x @ torch.linspace(-1, 1, x.shape[-1] ** 2, dtype=x.dtype).reshape(x.shape[-1], -1).cos(),
], ids=["relu", "shift", "flip", "first component", "matrix"])  # fmt: skip
def test_negative_control_other_functions_are_not_equivariant(wrong, name):
    rep = (2 * V)(group(name))
    assert equivariance_error(wrong, [rep], rep, group(name), elements=8) > 1e-3


@pytest.mark.parametrize("kind", LAYERS)
def test_negative_control_a_layer_of_another_group_is_not_equivariant(kind):
    layer, reps_in, rep_out = LAYERS[kind](group("SO(2) about z"))
    moved_in, moved_out = (
        [r(group("SO(3)")) for r in (_unbound(r) for r in reps_in)],
        _unbound(rep_out)(group("SO(3)")),
    )
    randomise(layer).double()
    assert equivariance_error(layer, moved_in, moved_out, group("SO(3)")) > 1e-3


def _unbound(rep):
    """The expression of a representation without its group."""
    return {5: V, 8: 2 * Scalar + V + V.T, 6: 2 * V, 3: V, 16: Scalar + 2 * V + V**2}[rep.size]


@pytest.mark.parametrize("name", ["T", "SO(3)", "O(1,3)", "2T", "Borel"])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_equivariant_too(kind, name):
    """The gradient of an invariant loss transforms in the dual."""
    g = group(name)
    layer, reps_in, rep_out = LAYERS[kind](g)
    randomise(layer).double().eval()
    a = g.sample(1, 3)[0]
    covector = features(rep_out, seed=5)
    xs = [features(r, seed=i) for i, r in enumerate(reps_in)]

    def gradient(xs, covector):
        xs = [x.requires_grad_() for x in xs]
        return torch.autograd.grad((layer(*xs) * covector).sum(), xs)

    moved = gradient([act(r, a, x) for r, x in zip(reps_in, xs)], act(rep_out.T, a, covector))
    for r, there, here in zip(reps_in, moved, gradient(xs, covector)):
        wanted = act(r.T, a, here)
        assert (there - wanted).abs().max() < 1e-9 * wanted.abs().max()


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_do_not_look_across_the_batch(kind):
    g = group("octahedral")
    layer, reps_in, _ = LAYERS[kind](g)
    randomise(layer).double().eval()
    xs = [features(r, 5, i) for i, r in enumerate(reps_in)]
    whole = layer(*xs)
    rows = torch.cat([layer(*[x[i : i + 1] for x in xs]) for i in range(5)])
    torch.testing.assert_close(whole, rows)


@pytest.mark.parametrize("kind", LAYERS)
def test_batches_of_any_shape(kind):
    g = group("SO(3)")
    layer, reps_in, rep_out = LAYERS[kind](g)
    layer.double().eval()
    xs = [features(r, 12, i) for i, r in enumerate(reps_in)]
    flat = layer(*xs)
    torch.testing.assert_close(layer(*[x.reshape(2, 3, 2, -1) for x in xs]), flat.reshape(2, 3, 2, -1))
    torch.testing.assert_close(layer(*[x[0] for x in xs]), flat[0])
    for empty in ((0,), (3, 0), (0, 2)):
        assert layer(*[x.new_zeros(*empty, x.shape[1]) for x in xs]).shape == (*empty, rep_out.size)
    layer.train()
    assert layer(*[x[:0] for x in xs]).shape == (0, rep_out.size)
    assert all(bool(torch.isfinite(b).all()) for b in layer.buffers())


@pytest.mark.parametrize("name", ["T", "SO(3)", "O(1,3)", "SU(2)", "Borel"])
@pytest.mark.parametrize("kind", LAYERS)
def test_every_parameter_is_used(kind, name):
    """Training on several processes needs a gradient for each."""
    layer, reps_in, rep_out = LAYERS[kind](group(name))
    randomise(layer).double()
    (layer(*[features(r, 20, i) for i, r in enumerate(reps_in)]) * features(rep_out, 20, 9)).sum().backward()
    for key, p in layer.named_parameters():
        if p.numel():
            assert p.grad is not None, key
            # the first layer of an EMLP makes fields that its input lacks, and they are zero
            assert kind == "EMLP" or bool((p.grad != 0).any()), key


# ---- linear -----------------------------------------------------------------------------------------------------


def matrix_of(layer):
    """The (out, in) matrix of a linear layer, without its bias."""
    eye = torch.eye(layer.rep_in.size, dtype=torch.float64)
    return (layer(eye) - layer(torch.zeros_like(eye))).T.detach()


@every_group
def test_linear_reaches_every_equivariant_map(name):
    g = group(name)
    rep_in, rep_out = (Scalar + V)(g), (2 * Scalar + V + V.T)(g)
    layer = Linear(rep_in, rep_out).double()
    basis = equivariant_basis(rep_in, rep_out)
    assert sum(p.numel() for p in layer.weight) == len(basis)
    assert sum(p.numel() for p in layer.bias) == len(equivariant_basis(Scalar(g), rep_out))
    span = basis.reshape(len(basis), -1)
    reached = []
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        for p in layer.weight:
            for i in range(p.numel()):
                p.view(-1)[i] = 1
                reached.append(matrix_of(layer).numpy().reshape(-1))
                p.view(-1)[i] = 0
    reached = np.array(reached).reshape(-1, span.shape[1])
    inside = reached @ span.T @ span
    np.testing.assert_allclose(
        reached, inside, atol=1e-9 * max(1, np.abs(reached).max(initial=0)) * condition(name)
    )
    assert np.linalg.matrix_rank(reached, tol=1e-6) == len(basis)


@pytest.mark.parametrize("name", ["SO(3)", "mirror", "S5", "trivial", "SE(2)"])
def test_bias_reaches_every_invariant_vector(name):
    g = group(name)
    rep = (Scalar + V + V.T)(g)
    layer = Linear(rep, rep).double()
    basis = equivariant_basis(Scalar(g), rep)[:, :, 0]
    reached = []
    with torch.no_grad():
        for p in layer.bias:
            for i in range(p.numel()):
                p.view(-1)[i] = 1
                reached.append(layer(torch.zeros(rep.size, dtype=torch.float64)).numpy().copy())
                p.view(-1)[i] = 0
    reached = np.array(reached).reshape(-1, rep.size)
    np.testing.assert_allclose(reached, reached @ basis.T @ basis, atol=1e-9)
    assert np.linalg.matrix_rank(reached, tol=1e-6) == len(basis)
    assert list(Linear(rep, rep, bias=False).bias) == []


def test_linear_is_linear():
    layer = Linear(*fields(group("Th")), bias=False).double()
    x, y = features(layer.rep_in), features(layer.rep_in, seed=1)
    torch.testing.assert_close(layer(2 * x - 3 * y), 2 * layer(x) - 3 * layer(y))


@pytest.mark.parametrize("name", ["SO(3)", "O(1,3)", "2T", "S5", "D7"])
def test_linear_keeps_unit_variance(name):
    g = group(name)
    layer = Linear((16 * Scalar + 16 * V)(g), (16 * Scalar + 16 * V)(g)).double()
    assert layer(features(layer.rep_in, 2000)).square().mean().item() == pytest.approx(1, rel=0.35)


def test_maps_between_fields_that_do_not_mix_are_zero():
    g = group("SO(3)")
    layer = Linear(V(g), Scalar(g)).double()
    assert sum(p.numel() for p in layer.weight) == 0
    assert layer(features(V(g))).abs().max() == 0
    assert Linear(V(g), (V**2)(g)).double()(features(V(g))).shape == (6, 9)


def test_reset_draws_weights_anew():
    layer = Linear(*fields(group("SO(3)")))
    before = copy.deepcopy(list(layer.weight))
    layer.reset_parameters()
    assert all((p != q).any() for p, q in zip(before, layer.weight) if p.numel())
    with torch.random.fork_rng(devices=[]):
        drawn = []
        for _ in range(2):
            torch.manual_seed(3)
            drawn.append(Linear(*fields(group("SO(3)"))).weight[0])
        torch.testing.assert_close(drawn[0], drawn[1])


# ---- gate, norm, invariants -------------------------------------------------------------------------------------


def test_gate_of_scalars_is_silu():
    g = group("SO(3)")
    gate = Gate((3 * Scalar)(g)).double()
    x = features((3 * Scalar)(g))
    torch.testing.assert_close(gate(x), torch.nn.functional.silu(x))


def test_gate_scales_each_field():
    g = group("SO(3)")
    gate = randomise(Gate((2 * Scalar + 3 * V)(g))).double()
    x = features(gate.rep)
    ratio = (gate(x) / x)[:, 2:].reshape(-1, 3, 3)
    torch.testing.assert_close(ratio, ratio[:, :, :1].expand_as(ratio))
    assert ratio.min() > 0
    assert ratio.max() < 1


def test_gate_without_scalars_depends_on_the_invariants():
    g = group("O(1,3)")
    gate = randomise(Gate(V(g))).double()
    light = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(gate(5 * light), 5 * gate(light))
    time = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert (gate(5 * time) - 5 * gate(time)).abs().max() > 1e-3


def test_norm_standardises_each_field():
    g = group("SO(3)")
    norm = BatchNorm((2 * Scalar + 2 * V)(g)).double()
    scale = torch.tensor([3.0, 0.1, *[50.0] * 3, *[0.02] * 3], dtype=torch.float64)
    x = features(norm.rep, 500) * scale + torch.tensor([7.0, -2.0, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    y = norm(x)
    torch.testing.assert_close(y[:, :2].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        y[:, :2].var(0, correction=0), torch.ones(2, dtype=torch.float64), atol=2e-2, rtol=0
    )
    squares = y[:, 2:].reshape(-1, 2, 3).square().mean((0, 2))
    torch.testing.assert_close(squares, torch.ones(2, dtype=torch.float64), atol=5e-2, rtol=0)


def test_running_averages_are_used_in_evaluation():
    g = group("SO(3)")
    norm = BatchNorm((2 * Scalar + 2 * V)(g), momentum=0.5).double()
    x = 4 * features(norm.rep, 200) + 1
    fresh = norm.eval()(x)
    torch.testing.assert_close(fresh, x / (1 + norm.eps) ** 0.5)
    norm.train()
    for _ in range(40):
        trained = norm(x)
    before = norm.running_square.clone()
    torch.testing.assert_close(norm.eval()(x), trained, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(norm.running_square, before)
    torch.testing.assert_close(norm(x[:1]), trained[:1], rtol=1e-6, atol=1e-6)


def test_norm_of_light_like_fields_stays_finite():
    g = group("O(1,3)")
    norm = BatchNorm(V(g)).double()
    y = norm(torch.tensor([[1.0, 1.0, 0, 0], [2.0, 0, 2.0, 0]], dtype=torch.float64))
    assert torch.isfinite(y).all()


def test_norm_without_parameters():
    norm = BatchNorm((Scalar + V)(group("SO(3)")), affine=False)
    assert list(norm.parameters()) == []
    assert norm(torch.randn(9, 4)).shape == (9, 4)


@every_group
def test_invariants_are_invariant(name):
    g = group(name)
    rep = (2 * Scalar + 2 * V)(g)
    invariants = Invariants(rep).double()
    x = features(rep, 4)
    y = invariants(x)
    assert y.shape == (4, invariants.size)
    assert invariants.size >= 2
    for a in g.sample(3, 1):
        torch.testing.assert_close(invariants(act(rep, a, x)), y, rtol=1e-9 * condition(name), atol=1e-9)


def test_invariants_of_known_groups():
    x = torch.tensor([[3.0, 1.0, 2.0, 2.0]], dtype=torch.float64)
    minkowski = Invariants(V(group("O(1,3)"))).double()(x).item()
    assert abs(minkowski) == pytest.approx(0, abs=1e-9)
    assert Invariants(V(group("SO(4)"))).double()(x).item() == pytest.approx(18 / 4)
    assert Invariants(V(group("SL(2)"))).size == 0  # the form of the plane's areas is not symmetric
    assert Invariants((V + Scalar)(group("Borel"))).size == 1


def test_pool_is_invariant_and_per_cloud():
    g = group("SO(3)")
    rep = (Scalar + 2 * V)(g)
    pool = InvariantPool(rep).double()
    x, batch = features(rep, 7), torch.tensor([0, 0, 2, 2, 2, 0, 2])
    y = pool(x, batch, 4)
    assert y.shape == (4, pool.size)
    assert y[1].abs().max() == y[3].abs().max() == 0
    torch.testing.assert_close(pool(act(rep, g.sample(1, 0)[0], x), batch, 4), y)
    torch.testing.assert_close(pool(x[batch == 2]), y[2:3])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(x[order], batch[order], 4), y)
    assert pool(x, batch).shape[0] == 3
    with pytest.raises(ValueError, match="one cloud index per node"):
        pool(x, batch[:3])


# ---- what is refused --------------------------------------------------------------------------------------------


SO3 = group("SO(3)")


@pytest.mark.parametrize("build", [
    lambda: Linear(V, V(SO3)), lambda: Linear(V(SO3), Scalar), lambda: Gate(V), lambda: BatchNorm(Scalar + V),
    lambda: Bilinear(V(SO3), V, V(SO3)), lambda: EMLP(V(SO3), V), lambda: Invariants(V),
    lambda: EMLP(V(SO3), V(SO3), V),
])  # fmt: skip
def test_unbound_representations_are_refused(build):
    with pytest.raises(RepError, match="not bound to a group"):
        build()


@pytest.mark.parametrize("build", [
    lambda h: Linear(V(SO3), V(h)), lambda h: Bilinear(V(SO3), V(SO3), V(h)), lambda h: EMLP(V(SO3), V(h)),
    lambda h: EMLP(V(SO3), V(SO3), hidden=V(h)),
])  # fmt: skip
def test_representations_of_different_groups_are_refused(build):
    with pytest.raises(RepError, match=r"SO\(3\).*O\(3\).*one group"):
        build(group("O(3)"))


@pytest.mark.parametrize(
    "build", [lambda: Linear(3, V(SO3)), lambda: Gate("V"), lambda: Bilinear(V(SO3), SO3, V(SO3))]
)
def test_what_is_no_representation_is_refused(build):
    with pytest.raises(RepError, match="must be a Rep"):
        build()


@pytest.mark.parametrize("build", [
    lambda z: Linear(z, V(SO3)), lambda z: Linear(V(SO3), z), lambda z: Gate(z), lambda z: BatchNorm(z),
    lambda z: Bilinear(z, V(SO3), V(SO3)), lambda z: EMLP(V(SO3), z), lambda z: Invariants(z),
])  # fmt: skip
def test_representations_without_components_are_refused(build):
    with pytest.raises(RepError, match="no components"):
        build(0 * V(SO3))


@pytest.mark.parametrize("kind", LAYERS)
def test_features_must_fit_the_representation(kind):
    layer, reps_in, _ = LAYERS[kind](SO3)
    good = [torch.zeros(4, r.size) for r in reps_in]
    layer(*good)
    with pytest.raises(RepError, match=r"shape \(4, 2\), expected \(\.\.\., "):
        layer(torch.zeros(4, 2), *good[1:])
    with pytest.raises(TypeError, match="must be a tensor"):
        layer(good[0].numpy(), *good[1:])
    with pytest.raises(TypeError, match="floating"):
        layer(good[0].long(), *good[1:])


@pytest.mark.parametrize("kind", LAYERS)
def test_features_must_have_the_dtype_of_the_layer(kind):
    layer, reps_in, _ = LAYERS[kind](SO3)
    with pytest.raises(TypeError, match=r"dtype torch.float64, the layer torch.float32"):
        layer(*[torch.ones(4, r.size, dtype=torch.float64) for r in reps_in])


def test_bilinear_needs_equal_batches_and_dtypes():
    layer, (a, b), _ = LAYERS["Bilinear"](SO3)
    with pytest.raises(ValueError, match="batch shapes"):
        layer(torch.zeros(4, a.size), torch.zeros(3, b.size))
    with pytest.raises(TypeError, match="dtype"):
        layer(torch.zeros(4, a.size), torch.zeros(4, b.size).double())


def test_bilinear_between_fields_that_do_not_couple_is_zero():
    g = group("O(3)")
    layer = Bilinear(V(g), Scalar(g), Scalar(g))
    assert layer(torch.randn(4, 3), torch.randn(4, 1)).abs().max() == 0


def test_layers_say_what_they_are():
    for kind in LAYERS:
        assert "V" in repr(LAYERS[kind](SO3)[0])
    assert "2Scalar + V + V*" in repr(LAYERS["Linear"](SO3)[0])


def test_irreducibles_make_fields():
    g = group("icosahedral")
    rep = sum([3 * r for r in irreps(g, 2)], Scalar(g))
    layer = randomise(EMLP(rep, rep, hidden=3)).double()
    assert equivariance_error(layer, [rep], rep, g) < 1e-10


# ---- segment reductions -----------------------------------------------------------------------------------------

each_backend = pytest.mark.parametrize(
    "backend",
    [
        "torch",
        pytest.param(
            "torch_scatter",
            marks=pytest.mark.skipif(
                "torch_scatter" not in available_backends(), reason="torch_scatter is not installed"
            ),
        ),
    ],
)
each_reduction = pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])


def reduced_by_hand(values, index, size, reduce):
    out = torch.zeros(size, *values.shape[1:], dtype=values.dtype)
    for i in range(size):
        rows = values[index == i]
        if len(rows):
            out[i] = {"sum": rows.sum(0), "mean": rows.mean(0), "max": rows.amax(0), "min": rows.amin(0)}[
                reduce
            ]
    return out


@each_backend
@each_reduction
@each_dtype
@pytest.mark.parametrize("index", [
    [0, 0, 1, 3, 3, 3, 5], [5, 0, 3, 0, 3, 1, 3], [2] * 7, [], [6, 5, 4, 3, 2, 1, 0],
], ids=["sorted", "unsorted", "one segment", "no rows", "reversed"])  # fmt: skip
def test_segments_are_reduced_like_by_hand(index, dtype, reduce, backend):
    index = torch.tensor(index, dtype=torch.long)
    rng = torch.Generator().manual_seed(0)
    for shape in ((), (3,), (2, 3)):
        # all negative: the maximum over an empty segment must not win
        values = -1 - torch.rand(len(index), *shape, generator=rng, dtype=dtype)
        out = segment_reduce(values, index, 7, reduce, backend)
        torch.testing.assert_close(out, reduced_by_hand(values, index, 7, reduce))


@each_backend
@each_reduction
def test_gradients_of_segments(reduce, backend):
    index = torch.tensor([3, 0, 3, 1, 3, 0])
    values = torch.randn(
        6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda v: segment_reduce(v, index, 5, reduce, backend), values)


def test_backends_agree():
    if available_backends() == ("torch",):
        pytest.skip("torch_scatter is not installed")
    rng = torch.Generator().manual_seed(0)
    values, index = torch.randn(500, 8, generator=rng), torch.randint(0, 90, (500,), generator=rng)
    for reduce in ("sum", "mean", "max", "min"):
        torch.testing.assert_close(
            segment_reduce(values, index, 100, reduce, "torch"),
            segment_reduce(values, index, 100, reduce, "torch_scatter"),
        )


def test_unknown_reductions_and_backends_are_refused(monkeypatch):
    values, index = torch.zeros(2, 1), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="reduce must be one of"):
        segment_reduce(values, index, 1, "median")
    with pytest.raises(ValueError, match="backend must be one of"):
        segment_reduce(values, index, 1, backend="numpy")
    monkeypatch.setattr("emkernel.ops.segment._torch_scatter", lambda: None)
    assert available_backends() == ("torch",)
    assert segment_reduce(values, index, 1).shape == (1, 1)
    with pytest.raises(ImportError, match="no-build-isolation"):
        segment_reduce(values, index, 1, backend="torch_scatter")
