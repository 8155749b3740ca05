"""Representations beyond V and its tensors: subspaces, powers, functions on finite sets, restriction, a user's own."""

from functools import cache
from itertools import permutations as orders
from math import comb, factorial

import numpy as np
import pytest
import scipy.linalg
from oracles import power_of_algebra, power_of_group
from tables import FINITE, TABLE, blocks, group, permutation, so, turn

from emkernel import (
    GivenRep,
    MatrixGroup,
    RepError,
    Scalar,
    SolverError,
    V,
    check_rep,
    equivariant_basis,
    groups,
    irreps,
)
from emkernel.cayley import cayley
from emkernel.characters import character, conjugacy_classes, inner_product
from emkernel.errors import GroupError
from emkernel.expressions import SumRep
from emkernel.finite_reps import PermutationRep, induced, permutation_rep, quotient, regular
from emkernel.given import from_function
from emkernel.powers import alt, sym, traceless
from emkernel.restriction import restrict
from emkernel.subrep import SubRep

every_group = pytest.mark.parametrize("name", TABLE)
POWERS = {"sym": sym, "alt": alt}
SO3, O3 = group("SO(3)"), group("O(3)")
J = turn(np.pi / 2).round()
MIRROR, SWAP, SHEAR = np.diag([1.0, -1.0]), np.array([[0.0, 1], [1, 0]]), np.array([[1.0, 1], [0, 1]])


def close(a, b, tol=1e-10):
    np.testing.assert_allclose(a, b, rtol=0, atol=tol * max(1.0, np.abs(b).max(initial=0)))


def rounding(name, power):
    return 1e-10 * TABLE[name].condition ** (2 * power)


def trace(m):
    return np.trace(m, axis1=-2, axis2=-1)


# ---- invariant subspaces ------------------------------------------------------------------------------------------


def test_a_subspace_carries_a_representation():
    G = group("SO(2) about z")
    plane = SubRep(V(G), np.array([[1.0, 1.0], [1.0, -2.0], [0, 0]]))
    g, h = G.sample(2, 0)
    close(plane.rho(g @ h), plane.rho(g) @ plane.rho(h))
    close(V(G).rho(g) @ plane.back, plane.back @ plane.rho(g))
    close(plane.to @ plane.back, np.eye(2))
    A = G.lie_algebra[0]
    close(plane.rho(scipy.linalg.expm(A)), scipy.linalg.expm(plane.drho(A)))
    close(plane.images.lie[0], plane.drho(A))
    assert check_rep(plane).passed


def test_oblique_coordinates_are_kept():
    G = group("mirror")
    line = SubRep(V(G), [[0.0], [2.0], [0.0]], [[0.0, 0.5, 7.0]])
    close(line.rho(G.generators[0]), [[1.0]])
    assert np.array_equal(line.to, [[0.0, 0.5, 7.0]])


def test_units_of_the_coordinates_hide_no_motion():
    """In SI units a line along x looks kept by boosts, whose entries are c and 1/c."""
    c = 299792458.0
    boost = MatrixGroup("boost", lie_algebra=[[[0, 1 / c], [c, 0]]])
    for axis in np.eye(2):
        with pytest.raises(RepError, match=r"not invariant: lie_algebra\[0\] of boost"):
            SubRep(V(boost), axis[:, None])
    light = SubRep(V(boost), [[1.0], [c]])
    close(light.drho(boost.lie_algebra[0]), [[1.0]])


@pytest.mark.parametrize(("back", "to", "message"), [
    (np.eye(3)[:, :1], None, r"not invariant: discrete_generators\[0\] of octahedral"),
    (np.ones((2, 1)), None, r"shape \(2, 1\), expected \(3, m\)"),
    (np.ones((3, 2)), None, "linearly dependent"),
    (np.zeros((3, 1)), None, "linearly dependent"),
    (np.eye(3), np.eye(3)[:2], r"to has shape \(2, 3\), expected \(3, 3\)"),
    (np.eye(3), 2 * np.eye(3), "to @ back is not the identity"),
    (np.full((3, 1), np.nan), None, "not finite"),
    (1j * np.eye(3), None, "real matrix"),
    (np.ones(3), None, "real matrix"),
])  # fmt: skip
def test_subspaces_that_are_refused(back, to, message):
    G = MatrixGroup("octahedral", group("octahedral").discrete_generators)
    with pytest.raises(RepError, match=message):
        SubRep(V(G), back, to)


def test_a_subspace_needs_a_bound_representation():
    with pytest.raises(RepError, match="not bound"):
        SubRep(V, np.eye(3))
    with pytest.raises(RepError, match="must be a representation"):
        SubRep(np.eye(3), np.eye(3))


def test_subspaces_are_equal_by_content_and_take_part_in_the_algebra():
    G = group("SO(2) about z")
    a, b, c = (SubRep(V(G), np.eye(3)[:, k]) for k in ([0, 1], [0, 1], [1, 0]))
    assert a == b and hash(a) == hash(b)
    assert a != c
    assert (2 * a + b).terms == ((3, a),)
    g = G.sample(1, 0)[0]
    close((a * a.T + Scalar).rho(g), scipy.linalg.block_diag(np.kron(turn_of(g), turn_of(g)), 1))
    with pytest.raises(RepError, match="already belongs"):
        a(SO3)


def turn_of(g):
    return g.matrix[:2, :2]


# ---- powers -------------------------------------------------------------------------------------------------------


def into_tensors(rep):
    """Sym^k or Alt^k -> V^⊗k, from the chain of subspaces."""
    if not isinstance(rep, SubRep):
        return np.eye(rep.size)
    first, second = rep.base.factors
    return np.kron(into_tensors(first), np.eye(second.size)) @ rep.back


@pytest.mark.parametrize("kind", POWERS)
@pytest.mark.parametrize("k", [2, 3])
def test_powers_are_the_symmetric_and_antisymmetric_tensors(kind, k):
    G = group("SL(2)") if kind == "sym" else SO3
    d, rep = G.d, POWERS[kind](V, k)(G)
    frame = into_tensors(rep)
    swapped = np.zeros((d**k, d**k))
    for order in orders(range(k)):
        sign = np.linalg.det(np.eye(k)[list(order)]) if kind == "alt" else 1.0
        swapped += sign * np.eye(d**k).reshape([d] * k + [-1]).transpose([*order, k]).reshape(d**k, -1)
    close(frame @ frame.T, swapped / factorial(k))
    g = G.sample(1, 0)[0]
    close(frame @ rep.rho(g), power_of_group(g.matrix, k) @ frame)
    for A in G.lie_algebra:
        close(frame @ rep.drho(A), power_of_algebra(A, k) @ frame)


@every_group
def test_dimensions_and_characters_of_powers(name):
    G = group(name)
    g, d = G.sample(3, 0), G.d
    p1, p2, p3 = (trace(np.linalg.matrix_power(g.matrix, k)) for k in (1, 2, 3))
    expected = {
        ("sym", 0): 1 + 0 * p1, ("alt", 0): 1 + 0 * p1, ("sym", 1): p1, ("alt", 1): p1,
        ("sym", 2): (p1**2 + p2) / 2, ("alt", 2): (p1**2 - p2) / 2,
        ("sym", 3): (p1**3 + 3 * p1 * p2 + 2 * p3) / 6, ("alt", 3): (p1**3 - 3 * p1 * p2 + 2 * p3) / 6,
    }  # fmt: skip
    for (kind, k), chi in expected.items():
        if d > 5 and k > 2:
            continue
        rep = POWERS[kind](V, k)(G)
        assert rep.size == (comb(d + k - 1, k) if kind == "sym" else comb(d, k))
        close(trace(rep.rho(g)) + np.zeros(3), chi, rounding(name, 2))
    close(alt(V, d)(G).rho(g)[:, 0, 0], np.linalg.det(g.matrix), rounding(name, 2))
    assert alt(V, d + 1)(G).size == 0


def test_powers_are_expressions():
    assert sym(V, 2) == sym(V, 2) != alt(V, 2)
    assert sym(V, 2)(SO3) == sym(V(SO3), 2)
    assert sym(V, 1)(SO3) == V(SO3)
    assert sym(V, 0) == Scalar == alt(V, 0)
    rep = (2 * Scalar + 3 * sym(V, 2) + alt(V, 2).T * V)(SO3)
    assert rep.size == 2 + 18 + 9
    assert str(sym(V, 2) + alt(V + Scalar, 3)) == "sym(V, 2) + alt(V + Scalar, 3)" == str(
        (sym(V, 2) + alt(V + Scalar, 3))(SO3)
    )
    assert len({sym(V, 2), sym(V, 3), alt(V, 2), traceless(V, 2), traceless(V, 2, form=np.eye(3))}) == 5
    assert alt(V + Scalar, 2)(SO3).size == 6
    with pytest.raises(RepError, match="not bound"):
        _ = sym(V, 2).size


@pytest.mark.parametrize("nonsense", [lambda: sym(3, 2), lambda: sym(V, -1), lambda: alt(V, 1.5), lambda: sym(V, True)])
def test_nonsense_powers_are_refused(nonsense):
    with pytest.raises(RepError):
        nonsense()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_traceless_tensors_of_rotations_are_the_harmonics(n):
    G = MatrixGroup(f"SO({n})", lie_algebra=so(n))
    for k in range(5 if n < 4 else 4):
        rep = traceless(V, k)(G)
        assert rep.size == comb(n + k - 1, k) - (comb(n + k - 3, k - 2) if k > 1 else 0)
        if n > 2 or k == 0:
            assert inner_product(rep, rep) == 1
            assert inner_product(rep, sym(V(G), k)) == 1
            assert inner_product(rep, sym(V(G), k - 2) if k > 1 else 0 * V(G)) == 0


def test_traceless_tensors_of_indefinite_forms():
    """One irreducible of each degree for Lorentz too, whatever the units."""
    lorentz, scale = group("O(1,3)"), np.diag([299792458.0, 1, 1, 1])
    back = np.linalg.inv(scale)
    si = MatrixGroup("SI", back @ lorentz.discrete_generators @ scale, back @ lorentz.lie_algebra @ scale)
    square = np.diag([1.0, -1, -1, -1])
    for G, form in ((lorentz, None), (lorentz, square), (si, scale @ square @ scale)):
        for k, size in ((2, 9), (3, 16)):
            rep = traceless(V, k, form=form)(G)
            assert rep.size == size
            assert check_rep(rep).passed
    assert inner_product(traceless(V, 2)(lorentz), traceless(V, 2)(lorentz)) == 1
    assert traceless(V, 2)(group("skew SO(3)")).size == 5


@pytest.mark.parametrize(("make", "message"), [
    (lambda: traceless(V, 2)(group("SL(2)")), "no symmetric invariant form"),
    (lambda: traceless(2 * V, 2)(SO3), "3 independent symmetric invariant forms.*pass one as form="),
    (lambda: traceless(V, 2, form=np.diag([1.0, 1, 2]))(SO3), r"not invariant under lie_algebra\[\d\] of SO\(3\)"),
    (lambda: traceless(V, 2, form=np.eye(2))(SO3), r"shape \(2, 2\), expected \(3, 3\)"),
    (lambda: traceless(V, 2, form=np.zeros((3, 3))), "symmetric and not zero"),
    (lambda: traceless(V, 2, form=np.triu(np.ones((3, 3)))), "symmetric and not zero"),
])  # fmt: skip
def test_a_traceless_power_needs_its_form(make, message):
    with pytest.raises(RepError, match=message):
        make()


def test_a_form_of_choice_for_an_ambiguous_one():
    assert traceless(2 * V, 2, form=np.kron([[0, 1], [1, 0]], np.eye(3)))(SO3).size == 20


# ---- functions on finite sets -------------------------------------------------------------------------------------

SMALL = [name for name in FINITE if name != "C1000"]


@cache
def some_irreps(name):
    """Irreducibles found in small powers of V; not all of them."""
    return irreps(group(name), 2)


@pytest.mark.parametrize("name", SMALL)
def test_the_regular_representation_holds_each_irreducible_by_its_dimension(name):
    G = group(name)
    rep = regular(G)
    assert rep.size == TABLE[name].order == inner_product(rep, rep)
    chi = character(rep, G.elements())
    assert np.array_equal(chi, [rep.size] + [0] * (rep.size - 1))
    for r in some_irreps(name):
        assert inner_product(rep, r) == r.size
    a, b = G.sample(2, 0)
    assert np.array_equal(rep.rho(a @ b), rep.rho(a) @ rep.rho(b))


def test_the_regular_representation_by_the_solver():
    G = group("T")
    assert len(equivariant_basis(regular(G), regular(G))) == 12
    assert len(equivariant_basis(V(G), regular(G))) == 3
    assert check_rep(regular(G)).passed


def test_permutations_act_on_the_left():
    G = group("S5")
    rep = permutation_rep(G, [[1, 0, 2, 3, 4], [1, 2, 3, 4, 0]])
    close(rep.images.discrete, G.discrete_generators)
    g = G.sample(4, 0)
    close(rep.rho(g), g.matrix)
    close(rep.rho(g[0].inverse), g[0].matrix.T)
    assert np.array_equal(rep.action(g), g.matrix.argmax(1))
    assert rep.T is rep
    C1000 = group("C1000")
    around = permutation_rep(C1000, [np.roll(np.arange(1000), -1)])
    g = C1000.sample(1, 3)[0]
    assert np.array_equal(around.action(g), np.roll(np.arange(1000), -g.power.sum()))


def test_points_are_their_orbits():
    Oh = groups.Oh()
    faces, edges, corners = (permutation_rep(Oh, points=[p]) for p in ([1, 0, 0], [1, 1, 0], [1, 1, 1]))
    assert (faces.size, edges.size, corners.size) == (6, 12, 8)
    assert permutation_rep(Oh, points=[[1, 0, 0], [-1, 0, 0], [1, 1, 1]]).size == 14
    g = Oh.sample(5, 0)
    moved = np.einsum("gij,pj->gpi", g.matrix, faces.points)
    close(np.stack([faces.points[a] for a in faces.action(g)]), moved)
    assert [inner_product(a, b) for a, b in ((faces, faces), (edges, faces), (corners, corners))] == [3, 3, 4]
    assert inner_product(faces, V(Oh)) == inner_product(corners, V(Oh)) == 1
    poles = permutation_rep(groups.O2zInv(), points=[0, 0, 1.0])
    assert poles.size == 2 and not np.any(poles.drho(groups.O2zInv().lie_algebra[0]))
    assert check_rep(poles).passed


@pytest.mark.parametrize(("make", "message"), [
    (lambda: permutation_rep(group("T"), [[1, 2, 0]]), r"expected \(2, P\) integers"),
    (lambda: permutation_rep(group("T"), [[1, 2, 0], [0, 0, 1]]), r"permutations\[1\] is not a permutation"),
    (lambda: permutation_rep(group("T"), [[1, 2, 3], [1, 2, 3]]), r"permutations\[0\] is not a permutation"),
    (lambda: permutation_rep(group("T"), [[1.0, 0], [0, 1]]), "integers"),
    (lambda: permutation_rep(group("T"), [[1, 0], [0, 1]]), "equal products .* permute the points differently"),
    (lambda: permutation_rep(groups.O2zInv(), [[0, 1], [0, 1], [1, 2]]), "expected|not a permutation"),
    (lambda: permutation_rep(MatrixGroup("SO2", [-np.eye(2)], [J]), [[1, 0]]), "breaks .* = exp of its logarithm"),
    (lambda: permutation_rep(SO3, points=[1.0, 0, 0]), r"lie_algebra\[\d\] of SO\(3\) moves"),
    (lambda: permutation_rep(group("integer shear"), points=[0.0, 1]), "do not close"),
    (lambda: permutation_rep(group("T"), points=[1.0, 0]), "expected finite vectors"),
    (lambda: permutation_rep(group("T")), "either"),
    (lambda: permutation_rep("T"), "expected a MatrixGroup"),
])  # fmt: skip
def test_actions_that_are_refused(make, message):
    with pytest.raises(RepError, match=message):
        make()


# subgroups of Oh, with generators that lie in it
INSIDE = {
    "C4v": lambda: groups.Cnv(4), "D3": lambda: MatrixGroup("D3", [permutation([1, 2, 0]), -permutation([1, 0, 2])]),
    "Inv": groups.Inv, "T": groups.T, "Oh": groups.Oh, "1": lambda: MatrixGroup("1", d=3),
}  # fmt: skip


@pytest.mark.parametrize("inside", INSIDE)
def test_frobenius_reciprocity(inside):
    G, H = groups.Oh(), INSIDE[inside]()
    cosets = quotient(G, H)
    assert cosets.size == G.order // H.order
    assert inner_product(cosets, Scalar(G)) == 1
    assert quotient(G, H.discrete_generators).size == cosets.size
    for below in (Scalar(H), V(H), (V**2)(H), *irreps(H, 1)):
        up = induced(G, below)
        assert up.size == below.size * cosets.size
        for above in irreps(G, 3):
            assert inner_product(up, above) == inner_product(below, restrict(above, H))
    trivial = induced(G, Scalar(H))
    assert np.array_equal(character(trivial, G.elements()), character(cosets, G.elements()))
    close(induced(G, regular(H)).size, G.order)
    assert inner_product(induced(G, regular(H)), regular(G)) == G.order


def test_the_character_of_an_induced_representation():
    """χ(g) = Σ over x in G of χ_H(x^-1 g x) / |H|, zero outside H."""
    G, H = group("S5"), MatrixGroup("S4", [permutation([1, 0, 2, 3, 4]), permutation([1, 2, 3, 0, 4])])
    rep = irreps(H, 2)[-1]
    up = induced(G, rep)
    x, inside = G.elements().matrix, H.elements()
    traces = character(rep, inside)
    for g in G.sample(4, 0):
        around = np.linalg.inv(x) @ g.matrix @ x
        same = np.abs(around[:, None] - inside.matrix).max((2, 3)) < 1e-9
        close(character(up, g), (same * traces).sum() / H.order)
    g, h = G.sample(2, 1)
    close(up.rho(g @ h), up.rho(g) @ up.rho(h))


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: quotient(groups.T(), groups.Octa()), RepError, "Octa is no subgroup of T: its generator"),
    (lambda: quotient(groups.Oh(), groups.SO(3)), RepError, "infinite"),
    (lambda: quotient(groups.Oh(), np.eye(2)[None]), RepError, r"expected \(K, 3, 3\)"),
    (lambda: quotient(groups.Oh(), groups.Th().sample(1, 0)), RepError, "elements of Th"),
    (lambda: quotient(SO3, groups.Oh()), GroupError, "infinite"),
    (lambda: regular(SO3), GroupError, "infinite"),
    (lambda: induced(groups.T(), V(groups.Octa())), RepError, "no subgroup"),
    (lambda: induced(groups.T(), V), RepError, "not bound"),
    (lambda: induced(groups.T(), groups.T()), RepError, "expected a representation"),
])  # fmt: skip
def test_subgroups_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_thousands_of_cosets():
    S7 = groups.S(7)
    pair = quotient(S7, [permutation([1, 0, 2, 3, 4, 5, 6])])
    assert pair.size == 2520
    assert inner_product(pair, Scalar(S7)) == 1
    assert inner_product(pair, V(S7)) == 6  # orbits of the stabiliser on seven points
    assert permutation_rep(S7, pair.permutations) == pair
    wrong = pair.permutations.copy()
    wrong[1, [0, 1]] = wrong[1, [1, 0]]
    with pytest.raises(RepError, match="permute the points differently"):
        permutation_rep(S7, wrong)


def test_permutations_have_an_identity_by_content():
    G = group("S5")
    a, b = (permutation_rep(G, [[1, 0, 2, 3, 4], [1, 2, 3, 4, 0]], name=n) for n in "ab")
    assert a == b and hash(a) == hash(b)
    assert a != regular(G)
    assert (a + b).terms == ((2, a),)
    assert isinstance(a(G), PermutationRep)


# ---- all irreducibles of a finite group ---------------------------------------------------------------------------

SIZES = {
    "trivial": [1], "C3": [1, 2], "C4": [1, 1, 2], "D7": [1, 1, 2, 2, 2], "mirror": [1, 1], "T": [1, 2, 3],
    "Th": [1, 1, 2, 2, 3, 3], "octahedral": [1, 1, 2, 3, 3], "icosahedral": [1, 3, 3, 4, 5],
    "S5": [1, 1, 4, 4, 5, 5, 6], "2T": [1, 2, 3, 4, 4], "C3 x C5": [1, 2, 2, 2, 2, 2, 2, 2],
    "skew octahedral": [1, 1, 2, 3, 3], "skew D7": [1, 1, 2, 2, 2],
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_all_irreducibles_of_a_finite_group(name):
    G = group(name)
    found = irreps(G, None)
    assert sorted(r.size for r in found) == SIZES[name]
    e = {"real": 1, "complex": 2, "quaternionic": 4}
    assert sum(r.size**2 // e[r.type] for r in found) == G.order
    assert found[0].is_trivial
    for a in found:
        for b in found:
            assert inner_product(a, b) == (e[a.type] if a is b else 0)
    for r in found:
        assert inner_product(r, regular(G)) == r.size
    labels, g = conjugacy_classes(G).labels, G.elements()
    inverse = cayley(G).find(g.inverse.matrix)
    assert len(found) == len({frozenset((labels[i], labels[j])) for i, j in enumerate(inverse)})


def test_all_irreducibles_of_an_infinite_group_are_refused():
    with pytest.raises((SolverError, GroupError, ValueError)):
        irreps(SO3, None)


# ---- restriction --------------------------------------------------------------------------------------------------


def rotation_subgroups():
    return {
        "octahedral": group("octahedral"), "icosahedral": group("icosahedral"), "about z": group("SO(2) about z"),
        "half turn": MatrixGroup("C2", [np.diag([-1.0, -1, 1])]), "trivial": MatrixGroup("1", d=3),
    }  # fmt: skip


@pytest.mark.parametrize("name", rotation_subgroups())
def test_spins_restrict_to_subgroups_of_rotations(name):
    """Known on the generators of SO(3) only, their characters are sin((2l + 1) θ/2) / sin(θ/2) on any rotation."""
    H = rotation_subgroups()[name]
    for spin in irreps(SO3, 3):
        rep = restrict(spin, H)
        assert rep.group is H and rep.size == spin.size
        l = (spin.size - 1) // 2
        for h in H.sample(4, 0):
            angle = np.arccos(np.clip((trace(h.matrix) - 1) / 2, -1, 1))
            close(character(rep, h), 1 + 2 * np.cos(np.arange(1, l + 1) * angle).sum(), 1e-7)
    assert check_rep(rep).passed


def test_branching_of_spins():
    octahedral = {1: [1], 3: [3], 5: [2, 3], 7: [1, 3, 3]}
    cubic, axial = group("octahedral"), group("SO(2) about z")
    for spin in irreps(SO3, 3):
        below = restrict(spin, cubic)
        pieces = [r.size for r in irreps(cubic, 3) for _ in range(inner_product(below, r))]
        assert sorted(pieces) == octahedral[spin.size]
        assert inner_product(Scalar(axial), restrict(spin, axial)) == 1


def test_an_algebra_generated_by_brackets():
    two = MatrixGroup("SO(3) by two", lie_algebra=so(3)[:2])
    given = GivenRep(two, lie=[power_of_algebra(a, 2) for a in so(3)[:2]])
    rep = restrict(given, SO3)
    g = SO3.sample(3, 0)
    close(rep.rho(g), (V**2)(SO3).rho(g))
    quarter = restrict(given, group("octahedral"))
    close(quarter.rho(quarter.group.generators), (V**2)(quarter.group).rho(quarter.group.generators))


def test_components_are_found_by_words():
    rep = irreps(O3, 2)[1:]
    Ih = groups.Ih()
    for r in rep:
        below = restrict(r, Ih)
        assert check_rep(below).passed
        assert inner_product(below, below) == 1
    lorentz = group("O(1,3)")
    tensor = GivenRep(lorentz, *((V**2)(lorentz).images.discrete, (V**2)(lorentz).images.lie))
    mirror = np.diag([-1.0, 1, -1, 1])
    H = MatrixGroup("H", [mirror, blocks(np.eye(1), turn(0.3), np.eye(1))], lorentz.lie_algebra[:1])
    below = restrict(tensor, H)
    close(below.rho(H.generators), (V**2)(H).rho(H.generators))
    close(below.drho(H.lie_algebra[0]), (V**2)(H).drho(H.lie_algebra[0]))


def test_every_kind_of_representation_restricts():
    G, H = groups.Oh(), groups.Cnv(4)
    h, in_g = H.sample(3, 0), None
    kinds = [V(G), (2 * V + Scalar)(G), (V * V.T)(G), sym(V, 2)(G), traceless(V, 2)(G), alt(V, 2)(G).T, regular(G),
             permutation_rep(G, points=[1.0, 0, 0]), irreps(G, 2)[-1], induced(G, V(H)), SumRep((), G)]  # fmt: skip
    elements = G.elements()
    for rep in kinds:
        below = restrict(rep, H)
        assert below.group is H and below.size == rep.size
        for k in h:
            in_g = elements[int(np.abs(elements.matrix - k.matrix).max((1, 2)).argmin())]
            close(below.rho(k), rep.rho(in_g))
    assert restrict((V + Scalar)(G), H) == (V + Scalar)(H)


def test_restriction_by_words():
    G = group("S5")
    spin = irreps(G, 2)[-1]
    words = G.sample(2, 0)
    H = MatrixGroup("H", words.matrix)
    close(restrict(spin, H, words).rho(H.generators), restrict(spin, H).rho(H.generators))
    for wrong in (G.sample(2, 5), G.sample(1, 0), group("T").sample(2, 0), words.matrix):
        with pytest.raises(RepError, match="words"):
            restrict(spin, H, wrong)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: restrict(irreps(SO3)[-1], O3), r"discrete_generators\[0\] of O\(3\) was not found in SO\(3\)"),
    (lambda: restrict(V(SO3), O3), "was not found"),
    (lambda: restrict(V(group("T")), group("octahedral")), r"discrete_generators\[1\] of O .* none of its 12 elements"),
    (lambda: restrict(V(group("SO(2) about z")), SO3), r"lie_algebra\[\d\] is not in the Lie algebra of dimension 1"),
    (lambda: restrict(V(SO3), group("O(2)")), "dimension 2"),
    (lambda: restrict(V, O3), "not bound"),
    (lambda: restrict(SO3, O3), "expected a representation"),
    (lambda: restrict(V(SO3), V), "must be a MatrixGroup"),
])  # fmt: skip
def test_what_is_no_subgroup_is_refused(make, message):
    with pytest.raises(RepError, match=message):
        make()


# ---- the user's own -----------------------------------------------------------------------------------------------

FUNCTIONS = {
    "pseudovector": (lambda g: np.linalg.det(g) * g, lambda a: a, alt(V, 2)),
    "determinant": (lambda g: np.array([[np.linalg.det(g)]]), lambda a: np.array([[np.trace(a)]]), alt(V, 3)),
    "square": (lambda g: np.kron(g, g), lambda a: power_of_algebra(a, 2), V**2),
    "dual": (lambda g: np.linalg.inv(g).T, lambda a: -a.T, V.T),
}
THREE = ["1", "mirror", "Th", "octahedral", "icosahedral", "SO(3)", "O(3)", "skew SO(3)", "SO(2) about z", "SE(2)"]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", THREE)
def test_a_representation_from_a_function(name, function):
    G = MatrixGroup("1", d=3) if name == "1" else group(name)
    rho, drho, same = FUNCTIONS[function]
    found = from_function(G, rho, name=function)
    exact = from_function(G, rho, drho)
    blur = TABLE[name].condition**4 if name in TABLE else 1.0
    close(found.images.discrete, exact.images.discrete, 1e-15)
    close(found.images.lie, exact.images.lie, 1e-13 * blur)
    g = G.sample(3, 0)
    close(found.rho(g), np.array([rho(m) for m in g.matrix]), 1e-12 * blur)
    close(character(found, g), character(same(G), g), 1e-11 * blur)


@pytest.mark.parametrize(("G", "rho", "drho", "message"), [
    (O3, lambda g: g.T, None, r"homomorphism|bracket|representation"),
    (O3, lambda g: g @ g, None, "no representation of O"),
    (O3, np.abs, None, "not linear|not continuous|no homomorphism"),
    (O3, lambda g: g[:2], None, r"rho\(1\) has shape \(2, 3\), expected \(n, n\)"),
    (O3, lambda g: g + 0j, None, "complex"),
    (O3, lambda g: g / 0 if g[0, 0] < 0 else g, None, "not finite"),
    (O3, lambda g: np.eye(2 if g[0, 0] > 0.5 else 3), None, r"expected \(2, 2\), as rho\(1\) has"),
    (O3, lambda g: g, lambda a: 2 * a, r"drho\(A_0\) is not the derivative"),
    (SO3, lambda g: np.eye(1) * (1 if np.array_equal(g, np.eye(3)) else -1), None, "does not tend to 1"),
    (group("T"), lambda g: np.eye(1) * np.abs(g).sum() / 3 - (g[0, 0] == 0), None, "no representation of T"),
    (group("octahedral"), lambda g: np.eye(1) * np.sign(g[0].sum() + g[1, 1] / 2), None, "no representation of O"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_that_are_no_representation(G, rho, drho, message):
    with pytest.raises(RepError, match=message):
        from_function(G, rho, drho)


def spin(j):
    """Generators of spin j, doubled, as real matrices, on the rotations so(3) about x, y, z."""
    m = np.arange(j, -j - 1, -2) / 2
    raising = np.diag(np.sqrt(j / 2 * (j / 2 + 1) - m[1:] * (m[1:] + 1)), 1)
    x, y, z = (raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(m)
    return np.array([np.block([[a.real, -a.imag], [a.imag, a.real]]) for a in (-1j * x, -1j * y, -1j * z)])


@pytest.mark.parametrize("j", [1, 2, 3, 4])
def test_half_integer_spins_have_two_values_on_rotations(j):
    x, y, z = np.zeros((3, 3, 3))
    x[2, 1] = y[0, 2] = z[1, 0] = 1
    G = MatrixGroup("SO(3) about x, y, z", lie_algebra=[a - a.T for a in (x, y, z)])
    if j % 2 == 0:
        assert check_rep(GivenRep(G, lie=spin(j))).passed
        return
    message = r"log g\)\) fails by 2.0e\+00, at the closed loop exp\(6.28319 A_0\) = 1.*two values"
    with pytest.raises(RepError, match=message):
        GivenRep(G, lie=spin(j))
    assert GivenRep(G, lie=spin(j), verify=False).size == 2 * (j + 1)
    SU2 = MatrixGroup("SU(2)", lie_algebra=spin(1))
    assert check_rep(GivenRep(SU2, lie=spin(j))).passed


@pytest.mark.parametrize(("make", "message"), [
    (lambda: GivenRep(groups.C(4), [turn(0.9)]), r"h_0\^4 = 1"),
    (lambda: GivenRep(groups.C(4), [turn(np.pi / 2) + 1e-6]), "fails by .*e-06, at h_0"),
    (lambda: GivenRep(MatrixGroup("D4", [MIRROR, SWAP]), [MIRROR, [[0.6, 0.8], [0.8, -0.6]]]), "products .* at h_"),
    (lambda: GivenRep(MatrixGroup("SL(2,Z)", [SHEAR, -J]), [SHEAR @ SHEAR, -J]), "equal products"),
    (lambda: GivenRep(SO3, lie=[2 * so(3)[0], *so(3)[1:]]), r"\[A_0, A_1\]|\[A_1, A_2\]|\[A_0, A_2\]"),
    (lambda: GivenRep(O3, [np.diag([1.0, -1, 1])], so(3)), r"h_0 A_\d h_0\^-1"),
    (lambda: GivenRep(MatrixGroup("SO2", lie_algebra=[J, 2 * J]), lie=[J, J]), "A_1 as a combination"),
    (lambda: GivenRep(groups.SO(2), lie=[1.5 * J]), "closed loop"),
    (lambda: GivenRep(MatrixGroup("SO2", [turn(1.0)], [J]), [turn(2.0)], [J]), "h_0 = exp of its logarithm"),
    (lambda: GivenRep(group("skew octahedral"), [np.eye(2), np.diag([1.0, -1])][::-1]), "no representation of skew"),
])  # fmt: skip
def test_broken_relations_are_named(make, message):
    with pytest.raises(RepError, match=message):
        make()


# those without a relation that tells a generator from its multiple
FREE = {"trivial", "shear", "integer shear", "SO+(1,1)", "O(1,1)", "skew O(1,1)"}


@pytest.mark.parametrize("name", [n for n in TABLE if n not in FREE])
def test_one_generator_out_of_step_is_noticed(name):
    G = group(name)
    discrete, lie = G.discrete_generators.copy(), G.lie_algebra.copy()
    (lie if len(lie) else discrete)[0] *= 1.01
    with pytest.raises(RepError, match="is no representation of"):
        GivenRep(G, discrete, lie)


@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4])
def test_a_bad_basis_is_not_taken_for_wrong_images(condition):
    u = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    s = u @ np.diag([1.0, np.sqrt(condition), condition]) @ u[::-1]
    G = groups.O(3)
    skew = MatrixGroup("skew", s @ G.discrete_generators @ np.linalg.inv(s), s @ G.lie_algebra @ np.linalg.inv(s))
    GivenRep(G, s @ G.discrete_generators @ np.linalg.inv(s), s @ G.lie_algebra @ np.linalg.inv(s))
    GivenRep(skew, skew.discrete_generators, skew.lie_algebra)
    octahedral = group("octahedral").discrete_generators
    GivenRep(group("octahedral"), s @ octahedral @ np.linalg.inv(s))
    with pytest.raises(RepError, match="no representation"):
        GivenRep(group("octahedral"), s @ octahedral[[0, 0]] @ np.linalg.inv(s))


def test_what_the_solver_found_is_not_verified_again(monkeypatch):
    monkeypatch.setattr("emkernel.given.relations", None)
    assert restrict(V(SO3), group("octahedral")).size == 3
    assert GivenRep(groups.C(4), [[[5.0]]], verify=False).size == 1
    with pytest.raises(TypeError):
        GivenRep(groups.C(4), [[[5.0]]])
    fresh = MatrixGroup("fresh", [turn(2 * np.pi / 11)])
    assert [r.size for r in irreps(fresh, 1)] == [1, 2]


# ---- physical units ---------------------------------------------------------------------------------------------

C = 299_792_458.0
LORENTZ_SI = MatrixGroup(
    "Lorentz in metres and seconds",
    lie_algebra=[
        [[0, 1 / C, 0], [C, 0, 0], [0, 0, 0]],
        [[0, 0, 1 / C], [0, 0, 0], [C, 0, 0]],
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
    ],
)


@pytest.mark.parametrize(
    "function",
    [lambda g: g, lambda g: np.diag([C, 1, 1]) @ g @ np.diag([1 / C, 1, 1]), lambda g: np.kron(g, g)],
    ids=["V", "natural units", "V ⊗ V"],
)
def test_functions_are_homomorphisms_whatever_the_units(function):
    rep = from_function(LORENTZ_SI, function)
    assert len(equivariant_basis(rep, V(LORENTZ_SI))) == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda g: np.array([[g[0, 0]]]),
        lambda g: np.array([[g[0, 0] ** 2]]),
        lambda g: np.kron(g, g @ g),
        lambda g: np.array([[1, np.log(abs(g[0, 0]))], [0, 1]]),
    ],
)
def test_negative_control_functions_that_are_no_homomorphisms_are_refused_whatever_the_units(function):
    with pytest.raises(RepError, match="homomorphism|representation"):
        from_function(LORENTZ_SI, function)
