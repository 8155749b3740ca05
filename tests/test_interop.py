"""The irreducibles of e3nn: real spherical harmonics, its matrices, its layout, and bases that lead there."""

import numpy as np
import pytest
import scipy.special
import torch
from oracles import equivariance_error
from tables import group

import emkernel as ek
from emkernel import GroupError, RepError, Scalar, V, e3nn_basis, e3nn_rep
from emkernel.nn import Linear, PointConv
from emkernel.nn.layout import Layout
from emkernel.solver import irreps as irreps_module

O3, SO3 = group("O(3)"), group("SO(3)")
THREE = ["O(3)", "SO(3)", "octahedral", "T", "Th", "icosahedral", "mirror"]
IRREPS = ["0e", "0o", "1o", "1e", "2e", "2o", "3o", "4e", "5o"]


def harmonics(l, x):
    """Real spherical harmonics (n, 2l+1) by scipy, with e3nn's (x, y, z) as the textbooks' (y, z, x)."""
    y, z, x = x.T / np.linalg.norm(x, axis=1)
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    m = np.arange(1, l + 1)[:, None]
    complex_ones = (-1.0) ** m * scipy.special.sph_harm_y(l, m, polar, azimuth) * 2**0.5
    zonal = scipy.special.sph_harm_y(l, 0, polar, azimuth).real[None]
    return np.concatenate([complex_ones.imag[::-1], zonal, complex_ones.real]).T


@pytest.fixture
def o3():
    """e3nn's module; it computes in the default dtype."""
    module = pytest.importorskip("e3nn.o3")
    torch.set_default_dtype(torch.float64)
    yield module
    torch.set_default_dtype(torch.float32)


def parity(matrices):
    return np.linalg.det(matrices).round()[:, None, None]


# ---- irreducibles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l", range(7))
def test_spherical_harmonics_turn_by_the_matrices(l):
    """Y(g x) = D(g) Y(x), parity (-1)^l."""
    g, x = O3.sample(6, 0), np.random.default_rng(0).standard_normal((9, 3))
    D = e3nn_rep(O3, f"{l}{'eo'[l % 2]}").rho(g)
    for h, d in zip(g.matrix, D):
        np.testing.assert_allclose(harmonics(l, x @ h.T), harmonics(l, x) @ d.T, atol=1e-11)
        assert l == 0 or np.abs(harmonics(l, x @ h.T) - harmonics(l, x) @ d).max() > 1e-3


@pytest.mark.parametrize("l", range(4))
def test_the_parities_differ_by_the_determinant(l):
    g = O3.sample(6, 0)
    even, odd = (e3nn_rep(O3, f"{l}{p}").rho(g) for p in "eo")
    np.testing.assert_allclose(even, parity(g.matrix) * odd, atol=1e-12)


def test_vectors_and_pseudovectors_are_themselves():
    g = O3.sample(6, 0)
    np.testing.assert_allclose(e3nn_rep(O3, "1o").rho(g), g.matrix, atol=1e-12)
    np.testing.assert_allclose(e3nn_rep(O3, "1e").rho(g), parity(g.matrix) * g.matrix, atol=1e-12)


@pytest.mark.parametrize("name", THREE)
def test_subgroups_are_represented_by_the_restriction(name):
    g, full = group(name).sample(4, 0), IRREPS[2:6]
    for irrep in full:
        rep = e3nn_rep(group(name), irrep)
        l, odd = int(irrep[0]), irrep[1] == "o"
        x = np.random.default_rng(1).standard_normal((9, 3))
        for h, d in zip(g.matrix, rep.rho(g)):
            sign = 1.0 if odd == l % 2 else np.linalg.det(h).round()
            np.testing.assert_allclose(harmonics(l, x @ h.T), sign * harmonics(l, x) @ d.T, atol=1e-11)


@pytest.mark.parametrize("irrep", IRREPS)
def test_matrices_are_those_of_e3nn(o3, irrep):
    g = O3.sample(6, 0)
    theirs = o3.Irrep(irrep).D_from_matrix(torch.as_tensor(g.matrix)).numpy()
    np.testing.assert_allclose(e3nn_rep(O3, irrep).rho(g), theirs, atol=1e-11)


def test_layout_and_name_are_those_of_e3nn(o3):
    irreps = o3.Irreps("2x0e + 3x1o + 1x2e + 2x1e")
    g, rep = O3.sample(3, 0), e3nn_rep(O3, irreps)
    theirs = irreps.D_from_matrix(torch.as_tensor(g.matrix)).numpy()
    np.testing.assert_allclose(rep.rho(g), theirs, atol=1e-11)
    assert rep.size == irreps.dim
    assert o3.Irreps(e3nn_basis(rep)[0]) == irreps


def test_layers_of_e3nn_and_ours_follow_each_other(o3):
    rep_in, rep_mid, irreps = V(O3) + Scalar(O3), e3nn_rep(O3, "2x0e + 2x1o"), o3.Irreps("1x0e + 2x1o")
    ours, theirs = Linear(rep_in, rep_mid).double(), o3.Linear("2x0e + 2x1o", irreps).double()
    error = equivariance_error(lambda x: theirs(ours(x)), [rep_in], e3nn_rep(O3, irreps), O3)
    assert error < 1e-10


# ---- bases ------------------------------------------------------------------------------------------------------


REPS = {
    "2x0e+3x1o": lambda g: (2 * Scalar + 3 * V)(g),
    "1x0e+1x1e+1x2e": lambda g: (V**2)(g),
    "1x0o+3x1o+2x2o+1x3o": lambda g: (V**3)(g),
    "2x1o+1x0e+1x2e": lambda g: V(g) + ek.sym(V(g), 2) + V(g),
    "1x0o+1x4e": lambda g: (
        ek.from_function(g, lambda h: np.linalg.det(h)[None, None]) + ek.traceless(V(g), 4)
    ),
    "1x3o+2x1e": lambda g: e3nn_rep(g, "3o + 2x1e"),
}


@pytest.mark.parametrize("irreps", REPS)
@pytest.mark.parametrize("name", ["O(3)", "SO(3)"])
def test_the_basis_leads_to_the_layout(irreps, name):
    """Q ρ(g) = D(g) Q, Q orthogonal; under SO(3) parity has no meaning."""
    g = group(name)
    rep = REPS[irreps](g)
    found, Q = e3nn_basis(rep)
    if name == "O(3)":
        assert found == irreps
    assert "o" not in found or name == "O(3)"
    np.testing.assert_allclose(Q @ Q.T, np.eye(rep.size), atol=1e-11)
    elements = g.sample(4, 0)
    for before, after in zip(rep.rho(elements), e3nn_rep(g, found).rho(elements)):
        np.testing.assert_allclose(Q @ before, after @ Q, atol=1e-10)


def test_representations_in_other_coordinates():
    """ρ' = S ρ S^-1 is not orthogonal: nor is Q."""
    rng = np.random.default_rng(0)
    S = rng.standard_normal((3, 3)) + 3 * np.eye(3)
    rep = ek.from_function(O3, lambda h: S @ h @ np.linalg.inv(S))
    irreps, Q = e3nn_basis(rep)
    assert irreps == "1x1o"
    g = O3.sample(3, 0)
    for before, after in zip(rep.rho(g), g.matrix):
        np.testing.assert_allclose(Q @ before, after @ Q, atol=1e-9)
    np.testing.assert_allclose(Q @ S, (Q @ S)[0, 0] * np.eye(3), atol=1e-9)


def test_a_vector_stays_what_it_is_whatever_was_met_before():
    kept = dict(irreps_module._tables)
    irreps_module._tables.clear()
    try:
        e3nn_basis(e3nn_rep(O3, "2e + 1o"))
        for met in (None, ek.alt(V(O3), 2), (V**3)(O3)):
            if met is not None:
                e3nn_basis(met)
            irreps, Q = e3nn_basis((Scalar + 2 * V)(O3))
            assert irreps == "1x0e+2x1o"
            np.testing.assert_allclose(Q, np.eye(7), atol=1e-12)
    finally:
        irreps_module._tables.clear()
        irreps_module._tables.update(kept)


# ---- layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["O(3)", "T", "icosahedral"])
def test_a_convolution_between_features_of_e3nn_is_equivariant(name):
    g = group(name)
    rep_in, rep_out = e3nn_rep(g, "2x0e + 1o"), e3nn_rep(g, "0o + 1e + 2x2e")
    conv = PointConv(rep_in, rep_out, width=2, hidden=8, cutoff=3.0, degree=3).double()
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 3]])
    error = equivariance_error(lambda x, pos: conv(x, pos, edges), [rep_in, V(g)], rep_out, g, rows=(5,))
    assert error < 1e-10


def test_a_checkpoint_is_of_images_to_ten_digits():
    """Another library's exponential may differ in the last digit; another representation does not load."""
    turned = Scalar(SO3) + ek.GivenRep(SO3, lie=SO3.lie_algebra * (1 + 1e-15), name="V")
    other = Scalar(SO3) + ek.GivenRep(SO3, lie=-SO3.lie_algebra.transpose(0, 2, 1)[:, ::-1, ::-1], name="V")
    assert not np.array_equal(turned.images.lie[:, 1:, 1:], SO3.lie_algebra)
    state = Layout(Scalar(SO3) + ek.GivenRep(SO3, lie=SO3.lie_algebra, name="V")).state_dict()
    Layout(turned).load_state_dict(state)
    with pytest.raises(RuntimeError, match="other representations"):
        Layout(other).load_state_dict(state)


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("irreps", ["", "1", "1x", "o1", "2x1o 1e", "1x1u", "-1x1o", "1o + + 1e"])
def test_other_names_are_refused(irreps):
    with pytest.raises(RepError, match="is no irreducible of e3nn"):
        e3nn_rep(O3, irreps)


@pytest.mark.parametrize(
    ("name", "message"),
    [("D7", r"acts on R\^2"), ("skew SO(3)", "orthogonal_basis"), ("O(1,3)", r"acts on R\^4")],
)
def test_other_groups_are_refused(name, message):
    with pytest.raises(GroupError, match=message):
        e3nn_rep(group(name), "1o")


@pytest.mark.parametrize("name", ["T", "octahedral", "mirror"])
def test_a_basis_under_a_subgroup_is_refused(name):
    with pytest.raises(GroupError, match="e3nn_rep"):
        e3nn_basis(V(group(name)))
