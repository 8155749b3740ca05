"""Invariant forms and polynomials against closed counts; radial functions, norms and graphs made of invariants."""

import copy
from math import comb

import numpy as np
import pytest
import torch
from oracles import act, closure, equivariance_error
from tables import BOOST, DIAGONAL, blocks, group, so

import emkernel as ek
from emkernel import MatrixGroup, RepError, Scalar, SolverError, V, groups
from emkernel.graph import interval_graph
from emkernel.nn import BatchNorm, Gate, ImplicitKernel, Invariants, PointConv
from emkernel.nn.embed import EdgeEmbedding
from emkernel.solver.forms import InvariantForms, invariant_forms
from emkernel.solver.invariants import equivariant_polynomials, invariant_polynomials

DOUBLE = torch.float64


def galilei(n):
    """Boosts x -> x + u t and rotations, and t -> -t, on (t, x_1..x_n)."""
    boosts = np.zeros((n, n + 1, n + 1))
    boosts[np.arange(n), np.arange(1, n + 1), 0] = 1
    turns = [blocks(np.zeros((1, 1)), a) for a in so(n)]
    return MatrixGroup(f"Galilei({n})", [np.diag([-1.0] + [1.0] * n)], [*boosts, *turns])


def galilei_homogeneous():
    """Boosts and translations on (x, t, 1)."""
    lie = np.zeros((3, 3, 3))
    lie[0, 0, 1] = lie[1, 0, 2] = lie[2, 1, 2] = 1
    return MatrixGroup("Galilei(1), homogeneous", lie_algebra=lie)


EXTRA = {
    "GL(2)": lambda: MatrixGroup("GL(2)", [DIAGONAL], np.eye(4).reshape(4, 2, 2)),
    "Sp(4)": lambda: groups.get("Sp(4)"),
    "C5v": lambda: MatrixGroup("C5v", [blocks(rotation(5), np.eye(1)), np.diag([1.0, -1.0, 1.0])]),
    "C5": lambda: MatrixGroup("C5", [rotation(5)]),
    "SO(2) about z": lambda: MatrixGroup("SO2z", lie_algebra=[blocks(so(2)[0], np.zeros((1, 1)))]),
    "O(3) x O(1,1)": lambda: MatrixGroup(
        "O(3) x O(1,1)",
        [blocks(-np.eye(3), np.eye(2)), blocks(np.eye(3), DIAGONAL), blocks(np.eye(3), -np.eye(2))],
        [*(blocks(a, np.zeros((2, 2))) for a in so(3)), blocks(np.zeros((3, 3)), BOOST)],
    ),
    "torus": lambda: MatrixGroup("torus", lie_algebra=[np.diag([1.0, -1, 0]), np.diag([0, 1.0, -1])]),
    "Galilei": lambda: galilei(3),
    "homogeneous": galilei_homogeneous,
}
_made = {}


def make(name):
    if name in EXTRA:
        if name not in _made:
            _made[name] = EXTRA[name]()
        return _made[name]
    return group(name)


def rotation(n):
    c, s = np.cos(2 * np.pi / n), np.sin(2 * np.pi / n)
    return np.array([[c, -s], [s, c]])


def randn(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE).to(dtype)


# ---- counts -----------------------------------------------------------------------------------------------------


def molien(matrices, degree, out=None):
    """mean_g χ_out(g) tr Sym^k(g) for k = 0..degree, by Newton's identities between power sums and traces."""
    powers = [matrices]
    for _ in range(degree - 1):
        powers.append(powers[-1] @ matrices)
    p = [np.trace(m, axis1=1, axis2=2) for m in powers]
    h = [np.ones(len(matrices))]
    for k in range(1, degree + 1):
        h.append(sum(p[j - 1] * h[k - j] for j in range(1, k + 1)) / k)
    character = np.ones(len(matrices)) if out is None else np.trace(out(matrices), axis1=1, axis2=2)
    return tuple(int(round(float(np.mean(character * x)))) for x in h)


@pytest.mark.parametrize(("name", "degree"), [
    ("octahedral", 8), ("icosahedral", 6), ("Th", 6), ("D7", 8), ("C5", 6), ("C5v", 6), ("2T", 6), ("trivial", 4),
    ("skew octahedral", 6),
])  # fmt: skip
def test_finite_groups_have_as_many_as_molien_counts(name, degree):
    g = make(name)
    elements = closure(g.generators.matrix, g.d) if len(g.discrete_generators) else np.eye(g.d)[None]
    assert invariant_polynomials(V(g), degree).counts == molien(elements, degree)
    small = min(degree, 4)
    assert equivariant_polynomials(V(g), V(g), small).counts == molien(elements, small, lambda m: m)
    square = np.vectorize(np.kron, signature="(i,i),(j,j)->(k,k)")
    assert equivariant_polynomials(V(g), (V**2)(g), 3).counts == molien(elements, 3, lambda m: square(m, m))


@pytest.mark.parametrize("n", [3, 4, 5])
def test_symmetric_polynomials_are_counted_by_partitions(n):
    g = groups.get(f"S({n})")
    partitions = [1, 1, 2, 3, 5, 7]  # of k into parts of any size; at most n of them
    few = {3: [1, 1, 2, 3, 4, 5], 4: [1, 1, 2, 3, 5, 6], 5: partitions}[n]
    assert list(invariant_polynomials(V(g), 5).counts) == few
    # the ring is free on n generators, of degrees 1 to n
    degrees = [0] + [1] * n + [0] * (5 - n)
    assert list(invariant_polynomials(V(g), 5, generators=True).counts) == degrees


@pytest.mark.parametrize(("name", "counts"), [
    ("O(3)", (1, 0, 1, 0, 1, 0, 1)), ("SO(4)", (1, 0, 1, 0, 1)), ("SU(2)", (1, 0, 1, 0, 1)),
    ("skew SO(3)", (1, 0, 1, 0, 1)), ("SO(2) about z", (1, 1, 2, 2, 3, 3)), ("O(1,1)", (1, 0, 1, 0, 1)),
    ("O(1,3)", (1, 0, 1, 0, 1)), ("SO+(1,3)", (1, 0, 1, 0, 1)), ("SL(2)", (1, 0, 0, 0, 0)), ("GL(2)", (1, 0, 0, 0, 0)),
    ("Sp(4)", (1, 0, 0, 0, 0)), ("Borel", (1, 0, 0, 0)), ("shear", (1, 1, 1, 1)), ("integer shear", (1, 1, 1, 1)),
    ("SE(2)", (1, 1, 1, 1)), ("Galilei", (1, 0, 1, 0, 1)), ("homogeneous", (1, 1, 1, 1)), ("torus", (1, 0, 0, 1, 0)),
    ("O(3) x O(1,1)", (1, 0, 2, 0, 3)),
])  # fmt: skip
def test_infinite_groups_have_the_known_invariants(name, counts):
    assert invariant_polynomials(V(make(name)), len(counts) - 1).counts == counts


@pytest.mark.parametrize(("name", "counts"), [
    # brackets [v, w]; lengths and v·w; fixed coordinates of two and the bracket; Minkowski squares of two
    ("SL(2)", (1, 0, 1, 0, 1)), ("Sp(4)", (1, 0, 1, 0, 1)), ("O(3)", (1, 0, 3, 0, 6)), ("shear", (1, 2, 4)),
    ("O(1,3)", (1, 0, 3, 0, 6)), ("GL(2)", (1, 0, 0, 0, 0)), ("Galilei", (1, 0, 3)),
])  # fmt: skip
def test_of_two_vectors(name, counts):
    assert invariant_polynomials((2 * V)(make(name)), len(counts) - 1).counts == counts


def test_generators_are_what_products_do_not_make():
    for name, wanted in (
        ("octahedral", (0, 0, 1, 0, 1, 0, 1)),
        ("D7", (0, 0, 1, 0, 0, 0, 0, 1)),
        ("SO(2) about z", (0, 1, 1, 0, 0)),
        ("shear", (0, 1, 0, 0)),
        ("torus", (0, 0, 0, 1, 0)),
        ("O(3) x O(1,1)", (0, 0, 2, 0, 0)),
    ):
        assert invariant_polynomials(V(make(name)), len(wanted) - 1, generators=True).counts == wanted, name


def test_equivariants_of_the_rotations():
    g = group("O(3)")
    # |x|^(k-l) Y_l: a scalar for even k, a vector for odd k, scalar and spin 2 in the tensor for even k
    assert equivariant_polynomials(V(g), V(g), 4).counts == (0, 1, 0, 1, 0)
    assert equivariant_polynomials(V(g), (V**2)(g), 4).counts == (1, 0, 2, 0, 2)
    assert equivariant_polynomials(V(g), Scalar(g), 4).counts == invariant_polynomials(V(g), 4).counts


# ---- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "octahedral", "skew SO(3)", "C5v", "O(1,3)", "Sp(4)", "SL(2)", "GL(2)", "Borel", "shear", "SE(2)", "Galilei",
])  # fmt: skip
def test_polynomials_transform_as_stated(name):
    g = make(name)
    for rep_in, rep_out in ((V(g), V(g)), ((Scalar + V)(g), (V + V.T)(g)), ((2 * V)(g), Scalar(g))):
        p = equivariant_polynomials(rep_in, rep_out, 3)
        x = randn(6, rep_in.size)
        y = p(x)
        assert y.shape == (6, sum(p.counts), *[rep_out.size][: rep_out.size > 1])
        for a in g.sample(3, 5):
            moved, wanted = p(act(rep_in, a, x)), y if rep_out.size == 1 else act(rep_out, a, y)
            assert (moved - wanted).abs().max() <= 1e-9 * max(1.0, wanted.abs().max(), moved.abs().max())


def test_a_polynomial_that_is_not_invariant_is_noticed():
    g = group("octahedral")
    p = invariant_polynomials(V(g), 4)
    wrong = copy.deepcopy(p)
    wrong.coefficients[4][0, 0, 1] += 0.1
    x, a = randn(6, 3), g.sample(1, 5)[0]
    assert (p(act(V(g), a, x)) - p(x)).abs().max() < 1e-12
    assert (wrong(act(V(g), a, x)) - wrong(x)).abs().max() > 1e-3


def test_values_are_the_polynomials_of_the_coefficients():
    g = make("C5")
    p = invariant_polynomials(V(g), 5)
    x = randn(4, 2)
    assert p.counts == (1, 0, 1, 0, 1, 2)
    by_hand = [
        sum(c * (x.numpy() ** e).prod(1) for c, e in zip(row[0], p.exponents(k)))
        for k, rows in enumerate(p.coefficients)
        for row in rows
    ]
    np.testing.assert_allclose(p(x).numpy(), np.stack(by_hand, 1), atol=1e-12)
    square = (x**2).sum(1)
    torch.testing.assert_close(p.of_degree(2)(x)[:, 0], square * p.coefficients[2][0, 0, 0])
    # degree 5: real and imaginary part of (x + iy)^5
    z = torch.complex(x[:, 0], x[:, 1]) ** 5
    basis = torch.stack([z.real, z.imag], 1)
    q = p.of_degree(5)(x)
    left = torch.linalg.lstsq(basis, q).solution
    torch.testing.assert_close(basis @ left, q)


def test_orthonormal_for_the_inner_product_of_bombieri():
    p = invariant_polynomials((2 * V)(group("octahedral")), 4)
    for k, c in enumerate(p.coefficients):
        # <x^a, x^b> = δ_ab a!/k!
        weight = np.array([1 / comb_many(e) for e in p.exponents(k)])
        gram = (c[:, 0] * weight) @ c[:, 0].T
        np.testing.assert_allclose(gram, np.eye(len(c)), atol=1e-10)


def comb_many(exponents):
    out, left = 1, int(sum(exponents))
    for e in exponents:
        out, left = out * comb(left, int(e)), left - int(e)
    return out


def test_differentiable_and_batched():
    g = group("O(1,3)")
    p = equivariant_polynomials(V(g), V(g), 3)
    x = randn(2, 3, 4).requires_grad_()
    assert p(x).shape == (2, 3, 2, 4)
    assert torch.autograd.gradcheck(p, x)
    assert torch.autograd.gradgradcheck(p, x)
    assert p(torch.zeros(1, 4, dtype=torch.float32)).dtype == torch.float32
    torch.testing.assert_close(p(x.detach().float()), p(x.detach()).float(), rtol=1e-4, atol=1e-4)


def test_what_is_refused():
    g, h = group("O(1,3)"), group("SL(2)")
    for bad in (lambda: invariant_polynomials(V, 2), lambda: invariant_polynomials("V", 2), lambda: invariant_forms(V),
                lambda: invariant_forms(3), lambda: equivariant_polynomials(V(g), V(h), 2),
                lambda: invariant_polynomials(V(g), 2)(torch.randn(3, 5)),
                lambda: invariant_polynomials(V(g), 2)(np.zeros((3, 4)))):  # fmt: skip
        with pytest.raises(RepError):
            bad()
    for degree in (-1, 1.5, True):
        with pytest.raises(ValueError, match="degree"):
            invariant_polynomials(V(g), degree)
    with pytest.raises(SolverError, match="monomials of degree 9"):
        invariant_polynomials((3 * V)(g), 9)


# ---- forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "symmetric", "antisymmetric", "signatures"), [
    ("O(3)", 1, 0, {(3, 0, 0)}), ("SO(2) about z", 2, 1, None), ("U(1)", 1, 1, {(2, 0, 0)}),
    ("O(1,3)", 1, 0, {(1, 3, 0), (3, 1, 0)}), ("SO+(1,1)", 1, 1, {(1, 1, 0)}), ("SL(2)", 0, 1, None),
    ("Sp(4)", 0, 1, None), ("GL(2)", 0, 0, None), ("Borel", 0, 1, None), ("shear", 1, 1, {(1, 0, 1)}),
    ("Galilei", 1, 0, {(1, 0, 3)}), ("SE(2)", 1, 0, {(1, 0, 2)}), ("torus", 0, 0, None),
    ("O(3) x O(1,1)", 2, 0, {(3, 0, 2), (1, 1, 3)}), ("trivial", 3, 1, None),
])  # fmt: skip
def test_forms_of_known_groups(name, symmetric, antisymmetric, signatures):
    g = make(name)
    forms = invariant_forms(V(g))
    assert (len(forms.symmetric), len(forms.antisymmetric)) == (symmetric, antisymmetric)
    if signatures is not None:
        assert {forms.signature(b) for b in forms.symmetric} <= signatures
    every = np.concatenate([forms.symmetric, forms.antisymmetric])
    flat = every.reshape(len(every), g.d**2)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-10)
    np.testing.assert_array_equal(forms.symmetric, forms.symmetric.transpose(0, 2, 1))
    np.testing.assert_array_equal(forms.antisymmetric, -forms.antisymmetric.transpose(0, 2, 1))
    for a in g.sample(3, 4).matrix:
        np.testing.assert_allclose(a.T @ every @ a, every, atol=1e-9 * np.abs(a).max() ** 2)


def test_forms_of_sums():
    # 2V: v·v, v·w, w·w and v·w - w·v; V + V*: the pairing, and with the other sign
    forms = invariant_forms((2 * V)(group("SO(3)")))
    assert (len(forms.symmetric), len(forms.antisymmetric)) == (3, 1)
    forms = invariant_forms((V + V.T)(make("GL(2)")))
    assert (len(forms.symmetric), len(forms.antisymmetric)) == (1, 1)
    np.testing.assert_allclose(
        forms.symmetric[0] / forms.symmetric[0, 0, 2], np.kron(BOOST, np.eye(2)), atol=1e-10
    )
    assert forms.signature(forms.symmetric[0]) == (2, 2, 0)


def test_symplectic_and_minkowski_forms_by_value():
    forms = invariant_forms(V(group("O(1,3)")))
    np.testing.assert_allclose(forms.symmetric[0] * 2, np.diag([1.0, -1, -1, -1]), atol=1e-12)
    forms = invariant_forms(V(group("SL(2)")))
    np.testing.assert_allclose(np.abs(forms.antisymmetric[0]) * 2**0.5, BOOST, atol=1e-12)


def in_units(c):
    """The Lorentz group on (t, x, y, z) with a speed of light c."""
    g, units = group("O(1,3)"), np.array([1 / c, 1, 1, 1])
    boosts = [units[:, None] * a / units for a in g.lie_algebra]
    return MatrixGroup(f"c = {c}", [units[:, None] * h / units for h in g.discrete_generators], boosts)


def test_the_minkowski_form_in_physical_units():
    g = in_units(299.792458)
    forms = invariant_forms(V(g))
    assert (len(forms.symmetric), len(forms.antisymmetric)) == (1, 0)
    form = forms.symmetric[0] / forms.symmetric[0, 0, 0]
    np.testing.assert_allclose(np.diag(form), [1, *[-1 / 299.792458**2] * 3], rtol=1e-6)
    assert forms.signature(form) == (1, 3, 0)
    assert invariant_polynomials(V(g), 4).counts == (1, 0, 1, 0, 1)


@pytest.mark.parametrize("c", [299792.458, 299792458.0])
def test_extreme_units_are_right_or_refused(c):
    forms = invariant_forms(V(in_units(c)))
    assert (len(forms.symmetric), len(forms.antisymmetric)) == (1, 0)
    try:
        found = forms.signature(forms.symmetric[0])
    except SolverError as e:
        found = "badly conditioned" in str(e) or "units of very different size" in str(e)
    assert found in ((1, 3, 0), True)


def test_signatures_are_counted_or_refused():
    none = np.zeros((0, 2, 2))
    forms = InvariantForms(none, none, np.diag([1e-8, 1.0]), none)
    assert forms.signature(np.diag([1.0, -1e-16])) == (1, 1, 0)
    assert forms.signature(np.diag([1.0, 0])) == (1, 0, 1)
    assert forms.signature(np.zeros((2, 2))) == (0, 0, 2)
    with pytest.raises(ValueError, match="not symmetric"):
        forms.signature(np.array([[0.0, 1], [-1, 0]]))
    with pytest.raises(ValueError, match="shape"):
        forms.signature(np.eye(3))
    with pytest.raises(SolverError, match="among others"):
        forms.signature(np.diag([1.0, -1e-24]))
    # a boost keeps t² - x²/c² and not t² alone, however small 1/c² is
    boost = np.array([[[5 / 4, 3e-9 / 4], [3e9 / 4, 5 / 4]]])
    with pytest.raises(SolverError, match="not invariant without"):
        InvariantForms(none, none, np.eye(2), boost).signature(np.diag([1.0, -1e-18]))
    assert InvariantForms(none, none, np.diag([1e-9, 1]), boost).signature(np.diag([1.0, -1e-18])) == (
        1,
        1,
        0,
    )


# ---- radial functions -------------------------------------------------------------------------------------------

NONCOMPACT = ["O(1,3)", "SO+(1,1)", "O(3) x O(1,1)", "torus", "shear", "Galilei", "homogeneous", "SE(2)", "Sp(4)",
              "SL(2)", "GL(2)", "Borel"]  # fmt: skip
SMALL = {"width": 2, "hidden": 8, "layers": 1, "radial": 5, "cutoff": 2.0}


def embedding(name, degree=2, edge_rep=None):
    return EdgeEmbedding(make(name), edge_rep, degree, 5, 2.0).double()


def kernel(name, degree=2, edge_rep=None, **options):
    g = make(name)
    torch.manual_seed(0)
    return ImplicitKernel(
        (Scalar + V)(g), (Scalar + V)(g), edge_rep, degree=degree, **SMALL, **options
    ).double()


@pytest.mark.parametrize(("name", "degree", "degrees"), [
    ("O(1,3)", 1, [2]), ("SO+(1,1)", 1, [2]), ("O(3) x O(1,1)", 2, [2, 2]), ("torus", 2, []), ("torus", 3, [3]),
    ("shear", 2, [1]), ("Galilei", 2, [2]), ("Sp(4)", 2, []), ("GL(2)", 2, []), ("Borel", 2, []), ("SE(2)", 2, [1]),
])  # fmt: skip
def test_radial_functions_of_every_invariant(name, degree, degrees):
    embed = embedding(name, degree)
    assert embed.radial._degrees == degrees
    assert embed.scalars == 6 * len(degrees)


@pytest.mark.parametrize("name", NONCOMPACT)
def test_scalars_of_an_edge_are_invariant(name):
    g = make(name)
    embed = embedding(name, 2, (Scalar + 2 * V)(g))
    x, z = randn(5, g.d), randn(5, 1 + 2 * g.d, seed=1)
    scalars, blocks_ = embed(x, z)
    assert scalars.shape == (5, embed.scalars)
    assert [b.shape[2] for b in blocks_] == embed.copies
    for a in g.sample(3, 2):
        moved, _ = embed(act(V(g), a, x), act((Scalar + 2 * V)(g), a, z))
        torch.testing.assert_close(moved, scalars, rtol=1e-9, atol=1e-8)


def test_two_forms_are_told_apart():
    """The sum of both squares is the same at both points, each alone is not."""
    embed = embedding("O(3) x O(1,1)")
    x = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]], dtype=DOUBLE)
    s, _ = embed(x, None)
    assert (s[0] - s[1]).abs().max() > 0.1
    torch.testing.assert_close(s[0], s[2])


def test_absolute_time_is_a_radial_function():
    embed = embedding("Galilei")
    x = torch.tensor([[1.0, 5, 0, 0], [-1, 0, 0, 9], [2, 5, 0, 0]], dtype=DOUBLE)
    s, _ = embed(x, None)
    torch.testing.assert_close(s[0], s[1])
    assert (s[0] - s[2]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["Sp(4)", "SL(2)"])
def test_the_symplectic_pairing_of_edge_and_attribute_enters(name):
    g = make(name)
    edge_rep = V(g)
    embed = embedding(name, 2, edge_rep)
    J = invariant_forms(V(g)).antisymmetric[0]
    x, z = randn(8, g.d), randn(8, g.d, seed=1)
    s, _ = embed(x, z)
    assert s.shape[1] == embed.pairings.size >= 1
    area = torch.einsum("ni,ij,nj->n", x, torch.as_tensor(J), z)
    # one of the columns is a monotone function of the pairing
    ranks = [
        torch.equal(c.argsort(), area.argsort()) or torch.equal((-c).argsort(), area.argsort()) for c in s.T
    ]
    assert any(ranks)
    # and the kernel depends on it, where the attribute alone cannot matter: it has no invariant of its own
    moved, _ = embed(x, z + 0.5 * x)
    torch.testing.assert_close(moved[:, ranks.index(True)], s[:, ranks.index(True)])


@pytest.mark.parametrize("name", ["O(1,3)", "SO+(1,1)", "O(3) x O(1,1)", "Galilei", "shear", "torus"])
def test_far_outside_and_on_the_cone_everything_stays_finite_in_single_precision(name):
    k = kernel(name).float()
    d = make(name).d
    cone = torch.ones(1, d)
    for scale in (0.0, 1e-6, 1.0, 1e4, 1e8):
        x = torch.cat([scale * randn(20, d, dtype=torch.float32), scale * cone]).requires_grad_()
        scalars, _ = k.embed(x, None)
        assert torch.isfinite(scalars).all()
        assert not scalars.numel() or scalars.detach().abs().max() < 50
        y = k(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", [*NONCOMPACT, "O(3)", "C5v", "SU(2)"])
def test_layers_of_invariants_are_exact(name):
    g = make(name)
    torch.manual_seed(0)
    rep = (Scalar + 3 * V + V.T)(g)
    conv = PointConv((Scalar + V)(g), (Scalar + V)(g), (Scalar + 2 * V)(g), **SMALL)
    for layer in (conv, BatchNorm(rep), Gate((3 * V + V.T)(g)), Invariants(rep)):
        report = ek.check_equivariance(layer)
        assert report.passed, str(report)


def test_a_radial_function_of_one_frame_is_noticed():
    k = kernel("O(1,3)")
    g = make("O(1,3)")
    assert ek.check_equivariance(k).passed
    with torch.no_grad():
        k.embed.radial.invariants2[:, 0] *= 1.01  # not the Minkowski square any more
    broken = lambda x: k(x).flatten(1)  # noqa: E731
    assert equivariance_error(broken, [V(g)], (Scalar + V)(g) >> (Scalar + V)(g), g) > 1e-4


def test_constants_travel_with_the_weights():
    k = kernel("O(3) x O(1,1)", 2, V(make("O(3) x O(1,1)")))
    state = k.state_dict()
    for name in ("embed.radial.invariants2", "embed.radial.centres", "embed.radial.sharpness"):
        assert state[name].dtype == DOUBLE
    assert any(name.startswith("embed.pairings.form") for name in state)
    x, z = randn(4, 5), randn(4, 5, seed=1)
    fresh = kernel("O(3) x O(1,1)", 2, V(make("O(3) x O(1,1)"))).float()
    fresh.embed.radial._exact["invariants2"] *= 2
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh.double()(x, z), k(x, z))


# ---- norms ------------------------------------------------------------------------------------------------------


def test_invariants_of_each_kind():
    def values(rep, x):
        return Invariants(rep).double()(torch.as_tensor(x, dtype=DOUBLE)[None])[0]

    area = values((3 * V)(group("SL(2)")), [1.0, 2, 3, 4, 5, 6])  # [v1, v2], [v2, v3]
    torch.testing.assert_close(area.abs(), torch.tensor([2.0, 2.0], dtype=DOUBLE) / 2)
    assert area[0] * area[1] > 0
    pairing = values((V + V.T)(make("GL(2)")), [1.0, 2, 3, 4])
    torch.testing.assert_close(pairing.abs(), torch.tensor([11.0], dtype=DOUBLE) / 2)
    minkowski = values(V(group("SO+(1,1)")), [3.0, 2.0])  # in two irreducibles, e^t and e^-t
    assert abs(abs(float(minkowski[0])) - 5 / 2) < 1e-9
    shear = values(V(group("shear")), [7.0, 2.0])
    torch.testing.assert_close(shear.abs(), torch.tensor([2.0], dtype=DOUBLE))
    assert Invariants((3 * V)(make("Sp(4)"))).size == 2
    assert Invariants((3 * V)(make("Galilei"))).size == 3


@pytest.mark.parametrize("name", ["O(1,3)", "SO+(1,1)", "Sp(4)", "SL(2)", "shear", "O(3) x O(1,1)"])
def test_batch_norm_measures_by_invariants(name):
    g = make(name)
    rep = (2 * V)(g)
    scale = torch.tensor([30.0] * g.d + [0.02] * g.d, dtype=DOUBLE)
    x = randn(4000, rep.size) * scale
    norm = BatchNorm(rep).double()
    y = norm(x)
    size = y.reshape(-1, 2, g.d).square().mean((0, 2))
    torch.testing.assert_close(size, torch.ones(2, dtype=DOUBLE), rtol=0.25, atol=0)
    before = norm.running_square.clone()
    boosted = BatchNorm(rep).double()
    a = g.sample(1, 3)[0]
    torch.testing.assert_close(boosted(act(rep, a, x)), act(rep, a, y), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(boosted.running_square, before, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(before, torch.ones_like(before))


def test_batch_norm_of_light_like_fields():
    """All squares vanish, and yet the batch has a size."""
    g = group("O(1,3)")
    n = randn(500, 3)
    x = 100 * torch.cat([n.norm(dim=1, keepdim=True), n], 1)
    y = BatchNorm(V(g)).double()(x)
    assert 0.1 < y.abs().mean() < 10
    one = x[:1].clone().requires_grad_()
    y = BatchNorm(V(g)).double()(one)  # a single one has none
    y.sum().backward()
    assert torch.isfinite(one.grad).all()
    assert y.abs().max() <= 1.001 * x[:1].abs().max() / (2e-5) ** 0.5
    for dtype in (torch.float32, DOUBLE):
        zero = torch.zeros(3, 4, dtype=dtype, requires_grad=True)
        BatchNorm(V(g)).to(dtype)(zero).sum().backward()
        assert torch.isfinite(zero.grad).all()
        huge = (1e15 * randn(3, 4)).to(dtype)
        assert torch.isfinite(BatchNorm(V(g)).to(dtype)(huge)).all()


def test_batch_norm_never_enlarges_by_a_degenerate_form():
    g = make("Galilei")
    x = randn(50, 4) * torch.tensor([1e-6, 1, 1, 1], dtype=DOUBLE)
    assert (BatchNorm(V(g)).double()(x).abs() <= x.abs()).all()
    assert BatchNorm(V(g)).double()(1e3 * randn(50, 4)).abs().mean() < 5


def test_gates_without_invariant_fields_see_the_pairings():
    g = make("Sp(4)")
    gate = Gate((2 * V)(g)).double()
    assert gate.gates.in_features == 1
    with torch.no_grad():
        gate.gates.weight.fill_(1.0)
    x = randn(4, 8)
    ratio = gate(x) / x
    assert ratio[:, 0].std() > 1e-2  # of the pairing, which differs from row to row
    torch.testing.assert_close(ratio[:, :4], ratio[:, :1].expand(-1, 4))


# ---- graphs -----------------------------------------------------------------------------------------------------

MINKOWSKI = torch.diag(torch.tensor([1.0, -1, -1, -1], dtype=DOUBLE))


def test_interval_graph_by_brute_force():
    pos, batch = randn(25, 4), torch.arange(25) % 3
    for form in (MINKOWSKI, torch.eye(4), torch.diag(torch.tensor([1.0, 0, 0, 0]))):
        for loop in (False, True):
            wanted = []
            for i in range(25):
                near = []
                for j in range(25):
                    v = pos[i] - pos[j]
                    q = abs(float(v @ form.double() @ v))
                    if batch[i] == batch[j] and q <= 0.49 and (loop or i != j):
                        near.append((q, j))
                wanted += [(j, i) for _, j in sorted(near)]
            found = interval_graph(pos, 0.7, form, batch, loop=loop)
            assert found.T.tolist() == [list(e) for e in wanted]
    assert torch.equal(interval_graph(pos, 0.7, torch.eye(4)), ek.radius_graph(pos, 0.7))


def test_interval_graph_is_that_of_every_frame():
    g = group("O(1,3)")
    pos = randn(60, 4)
    edges = interval_graph(pos, 0.5, MINKOWSKI)
    assert 20 < edges.shape[1] < 60 * 59
    for a in g.sample(4, 1):
        moved = act(V(g), a, pos)
        assert torch.equal(interval_graph(moved, 0.5, MINKOWSKI), edges)
    boost = act(V(g), g.sample(4, 1)[0], pos)
    assert not torch.equal(ek.radius_graph(boost, 1.0), ek.radius_graph(pos, 1.0))


def test_interval_graph_refuses():
    pos = randn(3, 2)
    assert interval_graph(randn(0, 2), 1.0, torch.eye(2)).shape == (2, 0)
    for bad in (lambda: interval_graph(pos, 0.0, torch.eye(2)), lambda: interval_graph(pos, 1.0, torch.eye(3)),
                lambda: interval_graph(pos, 1.0, torch.tensor([[0.0, 1], [-1, 0]])),
                lambda: interval_graph(pos * torch.inf, 1.0, torch.eye(2))):  # fmt: skip
        with pytest.raises(ValueError, match="r is|form|finite"):
            bad()
