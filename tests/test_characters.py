"""Characters, and the counts made with them, against tables and series known on paper."""

from math import comb

import numpy as np
import pytest
from oracles import closure, hom_of_spins
from tables import BOOST, FINITE, TABLE, group, permutation, so, turn

from emkernel import (
    GivenRep,
    MatrixGroup,
    RepError,
    Scalar,
    SolverError,
    V,
    equivariant_basis,
    groups,
    irreps,
)
from emkernel.characters import (
    character,
    character_table,
    conjugacy_classes,
    frobenius_schur,
    inner_product,
    molien,
)
from emkernel.errors import GroupError
from emkernel.finite_reps import permutation_rep, regular
from emkernel.powers import alt, sym, traceless

SO3 = group("SO(3)")


def close(a, b, tol=1e-10):
    np.testing.assert_allclose(a, b, rtol=0, atol=tol * max(1.0, np.abs(b).max(initial=0)))


# ---- characters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_the_character_is_the_trace(name):
    G = group(name)
    g, h = G.sample(3, 0), G.sample(3, 1)
    for rep in ((2 * V + Scalar)(G), (V * V.T * (V + Scalar))(G), sym(V, 2)(G), alt(V, 2).T(G), (0 * V)(G)):
        chi = character(rep, g)
        scale = 1e-12 * TABLE[name].condition ** 6 * max(1, np.abs(rep.rho(g)).max(initial=1))
        close(chi, np.trace(rep.rho(g), axis1=1, axis2=2), scale)
        assert chi.shape == (3,) and character(rep, g[0]).shape == ()
        if name in FINITE and not TABLE[name].condition > 1:
            close(character(rep, h @ g @ h.inverse), chi)
            close(character(rep, g.inverse), chi)


def test_the_character_of_a_high_power_is_not_built():
    g = SO3.sample(2, 0)
    close(character((V**30)(SO3), g), np.trace(g.matrix, axis1=1, axis2=2) ** 30)
    close(character(V(SO3), g.matrix), character(V(SO3), g))


def test_characters_want_a_bound_representation_of_the_group():
    counts = (lambda r, g: inner_product(r, r), lambda r, g: frobenius_schur(r), lambda r, g: molien(r, 2))
    for call in (character, *counts):
        with pytest.raises(RepError, match="not bound"):
            call(V, SO3.identity)
        with pytest.raises(RepError, match="expected a representation"):
            call(SO3, SO3.identity)
    with pytest.raises(RepError, match=r"representation of SO\(3\), got an element of O\(3\)"):
        character((V + Scalar)(SO3), group("O(3)").identity)
    with pytest.raises(RepError, match="same group"):
        inner_product(V(SO3), V(group("O(3)")))


# ---- classes and tables -------------------------------------------------------------------------------------------

CLASSES = {
    "trivial": [1], "C3": [1] * 3, "C4": [1] * 4, "C1000": [1] * 1000, "D7": [1, 2, 2, 2, 7], "mirror": [1, 1],
    "T": [1, 3, 4, 4], "Th": [1, 1, 3, 3, 4, 4, 4, 4], "octahedral": [1, 3, 6, 6, 8],
    "icosahedral": [1, 12, 12, 15, 20],
    "S5": [1, 10, 15, 20, 20, 24, 30], "2T": [1, 1, 4, 4, 4, 4, 6], "C3 x C5": [1] * 15,
    "skew octahedral": [1, 3, 6, 6, 8], "skew D7": [1, 2, 2, 2, 7],
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_conjugacy_classes(name):
    G = group(name)
    classes = conjugacy_classes(G)
    assert sorted(classes.sizes) == CLASSES[name] and len(classes) == len(CLASSES[name])
    assert classes.sizes[0] == 1 and np.abs(classes.representatives[0].matrix - np.eye(G.d)).max() < 1e-12
    assert np.array_equal(np.bincount(classes.labels), classes.sizes)
    if G.order < 200:
        g = G.elements().matrix
        for i in range(0, G.order, 7):
            around = g @ g[i] @ np.linalg.inv(g)
            place = [int(np.abs(g - m).max((1, 2)).argmin()) for m in around]
            assert set(place) == set(np.flatnonzero(classes.labels == classes.labels[i]))


def test_classes_of_thousands():
    assert len(conjugacy_classes(groups.S(7))) == 15
    with pytest.raises(GroupError, match="infinite"):
        conjugacy_classes(SO3)


def burnside(G):
    """(class of each element, characters (C, C)) from the class multiplication constants, by brute force.

    The central characters ω(C_r) = |C_r| χ(C_r) / χ(1) are the simultaneous eigenvalues of the matrices c_rst =
    #{(x, y) in C_r x C_s: xy = z_t} (Burnside; Dixon, 1967).
    """
    g = closure(list(G.discrete_generators), G.d)
    n = len(g)

    def place(m):
        return int(np.abs(g - m).max((1, 2)).argmin())

    table = np.array([[place(a @ b) for b in g] for a in g])
    inverse = table.argmin(1)
    label = np.full(n, -1)
    for x in range(n):
        if label[x] < 0:
            label[[table[table[y, x], inverse[y]] for y in range(n)]] = label.max() + 1
    many, sizes = label.max() + 1, np.bincount(label)
    c = np.zeros((many, many, many))
    for t in range(many):
        z = int(np.flatnonzero(label == t)[0])
        for x in range(n):
            c[label[x], label[table[inverse[x], z]], t] += 1
    mixed = np.tensordot(np.random.default_rng(0).standard_normal(many), c, 1)
    vectors = np.linalg.eig(mixed)[1]
    omega = (vectors / vectors[label[0]]).T
    degrees = np.sqrt(n / (np.abs(omega) ** 2 / sizes).sum(1))
    return g, label, omega * degrees[:, None] / sizes


@pytest.mark.parametrize("name", ["trivial", "C3", "C4", "D7", "T", "Th", "octahedral", "icosahedral", "2T", "C3 x C5"])
def test_character_tables(name):
    G = group(name)
    found = character_table(G)
    classes = found.classes
    g, label, wanted = burnside(G)
    where = [label[int(np.abs(g - m).max((1, 2)).argmin())] for m in classes.representatives.matrix]
    gram = np.abs(found.complex @ (wanted[:, where] * classes.sizes).conj().T) / G.order
    close(np.sort(gram, 1), np.sort(np.eye(len(classes)), 1), 1e-8)
    assert np.array_equal(np.sort(gram.argmax(1)), np.arange(len(classes)))
    # columns too
    close(found.complex.conj().T @ found.complex, np.diag(G.order / classes.sizes), 1e-8)
    for r, chi in zip(found.irreps, found.real):
        parts = found.complex[[found.irreps[o] is r for o in found.origin]]
        close(chi, parts.sum(0) * (2 if r.type == "quaternionic" else 1), 1e-8)
    assert found.irreps[0].label in str(found)


def test_the_table_of_the_binary_tetrahedral_group_has_every_type():
    found = character_table(group("2T"))
    assert sorted(r.type for r in found.irreps) == ["complex", "complex", "quaternionic", "real", "real"]
    assert sorted(np.round(found.complex[:, 0].real).astype(int)) == [1, 1, 1, 2, 2, 2, 3]


# ---- inner products -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in TABLE if TABLE[n].reducible])
def test_inner_products_are_the_counts_known_on_paper(name):
    G = group(name)
    one, two = V(G), (V**2)(G)
    if G.is_finite or G.d < 4:
        assert (inner_product(one, one), inner_product(two, one), inner_product(two, two)) == TABLE[name].hom
    assert inner_product(one, one) == TABLE[name].hom[0]


def test_inner_products_of_high_powers():
    for G, name in ((group("octahedral"), "octahedral"), (group("2T"), "2T")):
        g = closure(list(G.discrete_generators), G.d)
        traces = np.trace(g, axis1=1, axis2=2)
        for p, q in ((0, 6), (3, 4), (5, 5)):
            assert inner_product((V**p)(G), (V**q)(G)) == round((traces ** (p + q)).mean()), name
    assert inner_product((V**2)(SO3), (V**3)(SO3)) == hom_of_spins(2, 2, 3)


def test_a_mean_that_is_no_integer_is_refused():
    C4 = groups.C(4)
    wrong = GivenRep(C4, [turn(0.9)], name="wrong", verify=False)
    for count in (lambda: inner_product(wrong, wrong), lambda: molien(wrong, 3), lambda: frobenius_schur(wrong)):
        with pytest.raises(SolverError, match="no integer"):
            count()


# ---- Frobenius-Schur ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "indicator"), [
    (lambda: V(group("octahedral")), 1), (lambda: V(groups.C(5)), 0), (lambda: V(groups.C(2)), 2),
    (lambda: V(group("2T")), -2), (lambda: (V + 2 * Scalar)(group("2T")), 0), (lambda: V(group("SU(2)")), -2),
    (lambda: V(group("SU(3)")), 0), (lambda: V(SO3), 1), (lambda: V(group("U(1)")), 0), (lambda: (2 * V)(SO3), 2),
    (lambda: V(group("O(1,3)")), 1), (lambda: V(group("SL(2)")), -1), (lambda: V(groups.Sp(4)), -1),
    (lambda: regular(group("S5")), 26),
])  # fmt: skip
def test_frobenius_schur_indicators(make, indicator):
    """S5 has 26 elements with x² = 1: the indicator of the regular representation."""
    assert frobenius_schur(make()) == indicator


@pytest.mark.parametrize("name", ["C3", "D7", "T", "2T", "S5", "SO(3)", "SU(2)", "SU(3)", "O(2)", "SO(4)"])
def test_indicators_tell_the_types(name):
    for r in irreps(group(name), 2):
        assert frobenius_schur(r) == {"real": 1, "complex": 0, "quaternionic": -2}[r.type]


# ---- Molien -------------------------------------------------------------------------------------------------------


def series(numerator, denominator, degree):
    """Coefficients of Σ t^a / Π (1 - t^b) for a in the numerator, b in the denominator."""
    out = np.zeros(degree + 1, int)
    for a in numerator:
        if a <= degree:
            out[a] += 1
    for b in denominator:
        for k in range(b, degree + 1):
            out[k] += out[k - b]
    return out.tolist()


POINT = {
    "Oh": ([0], [2, 4, 6]), "Ih": ([0], [2, 6, 10]), "Td": ([0], [2, 3, 4]), "Octa": ([0, 9], [2, 4, 6]),
    "Ico": ([0, 15], [2, 6, 10]), "T": ([0, 6], [2, 3, 4]), "Th": ([0, 6], [2, 4, 6]), "M": ([0], [1, 1, 2]),
    "Inv": ([0, 2, 2, 2], [2, 2, 2]), "C4v": ([0], [1, 2, 4]), "C4z": ([0, 4], [1, 2, 4]), "D3": ([0], [2, 3]),
    "C6": ([0, 6], [2, 6]), "D6h": ([0], [2, 2, 6]), "Trivial3": ([0], [1, 1, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", POINT)
def test_molien_series_of_point_groups(name):
    """Reflection groups have Π 1 / (1 - t^degree); their rotations one more invariant, the Jacobian (Stanley, 1979)."""
    assert molien(V(groups.catalogue()[name]()), 30) == series(*POINT[name], 30)


def test_molien_series_of_other_representations():
    G = group("S5")
    assert molien(V(G), 12) == series([0], [1, 2, 3, 4, 5], 12)
    assert molien(V(groups.S(4)), 12) == series([0], [1, 2, 3, 4], 12)
    assert molien((3 * Scalar)(G), 4) == [comb(k + 2, 2) for k in range(5)]
    assert molien((0 * V)(G), 3) == [1, 0, 0, 0]
    assert molien(V(group("skew octahedral")), 12) == series(*POINT["Octa"], 12)
    assert molien(V(group("C1000")), 8) == series([0], [2], 8)
    assert molien(V(group("C1000")), 1000)[998:] == [1, 0, 3]
    swap = permutation_rep(MatrixGroup("S2", [permutation([1, 0])]), [[1, 0]])
    assert molien(swap, 6) == series([0], [1, 2], 6)
    assert [inner_product(Scalar(G), sym(V(G), k)) for k in range(5)] == molien(V(G), 4)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_invariants_of_rotations_are_powers_of_the_square(n):
    assert molien(V(MatrixGroup(f"SO({n})", lie_algebra=so(n))), 4) == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(("make", "numerator", "denominator"), [
    (lambda: (2 * V)(SO3), [0], [2, 2, 2]), (lambda: traceless(V, 2)(SO3), [0], [2, 3]),
    (lambda: (V + Scalar)(group("O(2)")), [0], [1, 2]), (lambda: V(group("O(1,3)")), [0], [2]),
    (lambda: V(group("SU(2)")), [0], [2]), (lambda: V(group("U(1)")), [0], [2]),
    (lambda: (2 * V)(group("SL(2)")), [0], [2]),
    (lambda: sym(V, 2)(group("SL(2)")), [0], [2]), (lambda: sym(V, 3)(group("SL(2)")), [0], [4]),
    (lambda: sym(V, 4)(group("SL(2)")), [0], [2, 3]),
    (lambda: (V + V.T)(MatrixGroup("SO+(1,1)", lie_algebra=[BOOST])), [0, 2], [2, 2, 2]),
])  # fmt: skip
def test_molien_series_of_infinite_groups(make, numerator, denominator):
    """Binary quadratic, cubic and quartic forms: the discriminant; of degree 4; I and J (Hilbert, 1890)."""
    assert molien(make(), 4) == series(numerator, denominator, 4)


def spin_invariants(j, k):
    """Invariants of degree k of SU(2) on binary forms of degree j, by weights: those of 0 less those of 2 (Cayley)."""
    counts = {}

    def weights(left, largest, total):
        if left == 0:
            counts[total] = counts.get(total, 0) + 1
            return
        for m in range(largest + 1):
            weights(left - 1, m, total + j - 2 * m)

    weights(k, j, 0)
    return counts.get(0, 0) - counts.get(2, 0)


@pytest.mark.parametrize("j", [2, 4, 6])
def test_invariants_of_binary_forms(j):
    """Integer spins as traceless tensors of SO(3), compared with Cayley's count of weights."""
    assert molien(traceless(V, j // 2)(SO3), 4) == [spin_invariants(j, k) for k in range(5)]


@pytest.mark.parametrize("degree", [-1, 1.5, "2", True])
def test_degrees_that_are_refused(degree):
    with pytest.raises(RepError, match="degree"):
        molien(V(SO3), degree)


def test_counts_agree_with_the_solver():
    for name in ("T", "2T", "S5", "skew D7"):
        G = group(name)
        for a, b in ((V(G), V(G)), ((V**2)(G), V(G)), (sym(V, 2)(G), alt(V, 2)(G))):
            assert inner_product(a, b) == len(equivariant_basis(a, b))
