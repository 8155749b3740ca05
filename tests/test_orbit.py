"""Functions on orbits: exact on whole ones, with a measured error that falls on sampled ones."""

import copy
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from oracles import act, equivariance_error, tolerance
from tables import CATALOGUE, COMPACT, FINITE, TABLE, condition, group, turn

from emkernel import MatrixGroup, RepError, Scalar, V, groups, irreps, knn_graph
from emkernel.models import SteerableBlock
from emkernel.nn import OrbitELU

LISTED = [*FINITE, *(name for name in CATALOGUE if group(name).is_finite and group(name).order <= 400)]
AXIS = groups.O2z()


def features(rep, n=6, seed=0):
    return torch.randn(n, rep.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fields(g):
    return (3 * Scalar + 2 * V + V.T + (V**2 if g.d <= 3 else Scalar))(g)


def identity(x):
    return x


# ---- whole orbits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LISTED)
def test_on_a_whole_orbit_it_is_equivariant(name):
    rep = fields(group(name))
    layer = OrbitELU(rep)
    assert layer.is_exact
    for dtype in (torch.float64, torch.float32):
        error = equivariance_error(layer.to(dtype), [rep], rep, group(name), dtype=dtype)
        assert error < tolerance(dtype, condition(name))
    assert layer.double().error() < 1e-12 * condition(name)


@pytest.mark.parametrize("name", COMPACT)
def test_with_the_identity_for_elu_it_is_the_identity(name):
    rep = (3 * Scalar + 2 * V)(group(name))
    x = features(rep)
    y = OrbitELU(rep, activation=identity).double()(x)
    assert (y - x).abs().max() < 1e-12 * condition(name) * x.abs().max()


@pytest.mark.parametrize("name", LISTED)
def test_coefficients_are_orthogonal_functions_on_a_whole_orbit(name):
    """Schur: Σ_p A_pa A_pb = P |v_ψ|² / dim ψ for a = b and 0 else, so points and copies weigh the same."""
    layer = OrbitELU(fields(group(name))).double()
    gram = layer.points * torch.eye(layer.sample.shape[1], dtype=torch.float64)
    copies = sum(k for _, k in layer._shapes)
    dimensions = torch.tensor([d for d, k in layer._shapes for _ in range(d * k)])
    torch.testing.assert_close(layer.sample.T @ layer.sample, gram / dimensions / copies, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", COMPACT)
def test_scalars_see_elu_itself(name):
    x = features((3 * Scalar)(group(name)))
    layer = OrbitELU((3 * Scalar)(group(name)), samples=8).double()
    torch.testing.assert_close(layer(x), torch.nn.functional.elu(x))


def test_the_group_of_two_elements_by_hand():
    """f(±1) = (s ± v) / √2, and s, v are the even and odd part of √2 elu(f)."""
    g = MatrixGroup("±1", [[[-1.0]]])
    x = features((Scalar + V)(g))
    f = (x @ torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)) / 2**0.5
    up, down = torch.nn.functional.elu(f).T
    torch.testing.assert_close(OrbitELU((Scalar + V)(g)).double()(x), torch.stack([up + down, up - down], 1) / 2**0.5)


@pytest.mark.parametrize(("point", "cosets"), [([0, 0, 1], 6), ([1, 1, 1], 8), ([1, 1, 0], 12), ([1, 2, 0], 24)])
def test_a_quotient_has_as_many_points_as_cosets(point, cosets):
    g = groups.Oh()
    below = groups.Stabiliser(g, tensors=[point])
    layer = OrbitELU((2 * Scalar + 2 * V)(g), subgroup=below).double()
    assert (layer.points, layer.is_exact) == (cosets, True) == (g.order // below.order, True)
    assert equivariance_error(layer, [layer.rep], layer.rep, g) < 1e-10


def test_copies_are_dealt_out_to_few_functions():
    g = group("SO(3)")
    assert OrbitELU((2 * Scalar + 6 * V)(g)).functions == 2  # three copies each on the group
    assert OrbitELU((2 * Scalar + 6 * V)(g), subgroup=groups.SO2z()).functions == 6  # one on the sphere
    assert OrbitELU((7 * Scalar + 6 * V)(g)).functions == 7
    g = group("C3")  # of complex type: one copy of the plane, as a turned one is the same function turned
    assert OrbitELU((2 * V)(g)).functions == 2
    g = group("2T")  # of quaternionic type
    assert OrbitELU((2 * V)(g)).functions == 2


def test_all_channels_of_a_function_meet():
    g = group("octahedral")
    layer = OrbitELU((2 * Scalar + 2 * V)(g)).double()
    x = features(layer.rep, 1).requires_grad_()
    reached = torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0][0] != 0 for y in layer(x)[0]])
    together = torch.tensor([0, 1, 0, 0, 0, 1, 1, 1])
    assert torch.equal(reached, together[:, None] == together)


# ---- sampled orbits ---------------------------------------------------------------------------------------------

SAMPLED = {  # name -> (group, subgroup, which irreducibles up to which degree)
    "SO(2)": (group("U(1)"), None, 2),
    "SO(3)": (group("SO(3)"), None, 2),
    "SO(3) on the sphere": (group("SO(3)"), groups.SO2z(), 2),
    "O(3) on the sphere": (group("O(3)"), AXIS, 1),
    "O(3)": (group("O(3)"), None, 1),
    "SU(2)": (group("SU(2)"), None, 1),
    "SU(3)": (group("SU(3)"), None, 1),
    "SO(3) x S3": (group("SO(3) x S3"), None, 1),
    "skew SO(3)": (group("skew SO(3)"), None, 1),
    "a turn that never closes": (MatrixGroup("turn", [turn(1.0)]), None, 1),
}


@pytest.mark.parametrize("name", SAMPLED)
def test_the_error_of_a_sampled_orbit_falls(name):
    g, below, degree = SAMPLED[name]
    rep = sum((3 * r for r in irreps(g, degree)[1:]), 3 * Scalar(g))
    few, many = (OrbitELU(rep, subgroup=below, samples=n).double() for n in (60, 240))
    assert not few.is_exact
    # of points drawn at random it would halve
    assert many.error() < 0.4 * few.error()
    assert many.error() < 0.02
    for layer in (few, many):
        independent = equivariance_error(layer, [rep], rep, g, rows=(40,), elements=5)
        assert layer.error() / 4 < independent < 10 * layer.error()


@pytest.mark.parametrize("name", ["octahedral", "icosahedral", "S5"])
def test_large_finite_orbits_are_sampled_on_request(name):
    rep = (2 * Scalar + 2 * V)(group(name))
    order = group(name).order
    layer = OrbitELU(rep, samples=order).double()
    assert (layer.is_exact, layer.points) == (True, order)
    layer = OrbitELU(rep, samples=order - 1).double()
    assert (layer.is_exact, layer.points) == (False, order - 1)
    assert 1e-6 < layer.error() < 0.3


def test_points_fall_on_all_components_alike():
    """On O(3) the determinant is a function with mean zero."""
    g = group("O(3)")
    (det,) = [r for r in irreps(g, 3) if r.size == 1 and not r.is_trivial]
    layer = OrbitELU((det + V(g)), samples=100).double()
    signs = Counter(np.sign(layer.sample[:, 0].numpy()).tolist())
    assert signs == {1.0: 50, -1.0: 50}


def test_negative_control_other_points_are_not_equivariant():
    rep = (2 * Scalar + 2 * V)(group("octahedral"))
    layer = OrbitELU(rep).double()
    layer._exact["sample"] = layer._exact["sample"][:13].clone()
    layer._exact["project"] = torch.linalg.pinv(layer._exact["sample"])
    layer.double()
    assert equivariance_error(layer, [rep], rep, group("octahedral")) > 1e-2
    assert layer.error() > 1e-2


# ---- in a network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "allowed"), [("octahedral", 1e-10), ("SO(3)", 0.05)])
def test_blocks_take_it_for_their_nonlinearity(name, allowed):
    g = group(name)
    rep = (3 * Scalar + 3 * V)(g)
    block = SteerableBlock(rep, rep, nonlinearity=partial(OrbitELU, samples=200), width=2).double()
    assert isinstance(block.gate, OrbitELU)
    pos, x = features(V(g), 12), features(rep, 12, 1)
    edges = knn_graph(pos, 3)
    y, a = block(x, pos, edges), g.sample(1, 2)[0]
    moved, wanted = block(act(rep, a, x), act(V(g), a, pos), edges), act(rep, a, y)
    assert (moved - wanted).abs().max() < allowed * wanted.abs().max()


# ---- as a layer -------------------------------------------------------------------------------------------------


def test_gradients():
    g = group("octahedral")
    rep = (2 * Scalar + V)(g)
    layer = OrbitELU(rep).double()
    assert torch.autograd.gradcheck(layer, features(rep, 3).requires_grad_())
    a, covector = g.sample(1, 3)[0], features(rep, seed=5)

    def gradient(x, covector):
        x = x.requires_grad_()
        return torch.autograd.grad((layer(x) * covector).sum(), x)[0]

    x = features(rep)
    wanted = act(rep.T, a, gradient(x.clone(), covector))
    torch.testing.assert_close(gradient(act(rep, a, x), act(rep.T, a, covector)), wanted)


def test_batches_of_any_shape():
    rep = fields(group("D7"))
    layer = OrbitELU(rep).double()
    x = features(rep, 12)
    flat = layer(x)
    torch.testing.assert_close(layer(x.reshape(2, 3, 2, -1)), flat.reshape(2, 3, 2, -1))
    torch.testing.assert_close(layer(x[0]), flat[0])
    assert layer(x[:0]).shape == (0, rep.size)


@pytest.mark.parametrize("name", ["octahedral", "SO(3)"])
def test_the_points_are_saved_and_the_same_every_time(name):
    rep = (2 * Scalar + 2 * V)(group(name))
    saved, again, loaded = (OrbitELU(rep, samples=60).double() for _ in range(3))
    assert torch.equal(saved.sample, again.sample)
    assert torch.equal(saved.project, again.project)
    state = copy.deepcopy(saved.state_dict())
    assert {"sample", "project"} <= set(state)
    assert state["sample"].dtype == torch.float64
    loaded._exact["sample"] = loaded._exact["sample"].flip(1)
    x = features(rep)
    assert (loaded.double()(x) - saved(x)).abs().max() > 1e-3
    loaded.load_state_dict(state)
    torch.testing.assert_close(loaded(x), saved(x), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="another group, other representations"):
        OrbitELU(rep, samples=40 if name == "SO(3)" else 20).load_state_dict(state)


def test_global_randomness_is_left_alone():
    before = torch.get_rng_state()
    OrbitELU((Scalar + V)(group("SO(3)")), samples=30).error()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if not row.compact])
def test_groups_that_are_not_compact_are_refused(name):
    with pytest.raises(RepError, match="not compact.*Gate"):
        OrbitELU((Scalar + V)(group(name)))


def test_what_does_not_fit_is_refused():
    g = group("O(3)")
    with pytest.raises(RepError, match="no vector that .* fixes.*smaller subgroup"):
        OrbitELU(irreps(g, 2)[2], subgroup=AXIS)  # the pseudovector is no function on the sphere
    with pytest.raises(RepError, match="no subgroup"):
        OrbitELU(V(group("octahedral")), subgroup=groups.SO2z())
    with pytest.raises(ValueError, match="3 points do not determine the 4 coefficients"):
        OrbitELU((Scalar + V)(g), subgroup=AXIS, samples=3)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        OrbitELU(V(g), samples=0)
    with pytest.raises(RepError, match="not bound to a group"):
        OrbitELU(V)
    layer = OrbitELU((Scalar + V)(g), samples=20)
    with pytest.raises(RepError, match="expected"):
        layer(torch.zeros(3, 5))
    assert "functions on 20 points sampled of O(3)" in repr(layer)
