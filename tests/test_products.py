"""Groups from groups: products, stabilisers, and permutations, with orders and dimensions known on paper."""

from itertools import permutations
from math import factorial

import numpy as np
import pytest
from tables import turn

from emkernel import MatrixGroup, V, equivariant_basis, groups
from emkernel.errors import GroupError

SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
SHEAR = MatrixGroup("Z", [[[1, 1], [0, 1]]])


def same(a, b):
    np.testing.assert_allclose(a, b, atol=1e-12)


# ---- permutations -----------------------------------------------------------------------------------------------


def m24():
    """Conway's α: x -> x+1, γ: x -> -1/x and δ on the projective line of 23 points and ∞."""
    squares = {x * x % 23 for x in range(23)}
    delta = [pow(x, 3, 23) * (pow(9, -1, 23) if x in squares else 9) % 23 for x in range(23)]
    gamma = [23, *(-pow(x, -1, 23) % 23 for x in range(1, 23)), 0]
    return [[*((x + 1) % 23 for x in range(23)), 23], gamma, [*delta, 23]]


def test_a_permutation_sends_each_point_to_its_image():
    G = MatrixGroup.from_permutations("cycle", [[2, 0, 1, 3]])
    for point, image in enumerate([2, 0, 1, 3]):
        same(G.discrete_generators[0][:, point], np.eye(4)[image])
    assert MatrixGroup.from_permutations("cycles", [[(0, 2, 1)]], points=4) == G
    assert MatrixGroup.from_permutations("none", [], points=3).d == 3


@pytest.mark.parametrize(("make", "order"), [
    (lambda: MatrixGroup.from_permutations("M24", m24()), 244823040), (lambda: groups.S(50), factorial(50)),
    (lambda: groups.A(30), factorial(30) // 2), (groups.Rubik, 43252003274489856000),
    (lambda: groups.B(12), 2**12 * factorial(12)),
    (lambda: MatrixGroup.from_permutations("order beyond eigenvalues", [np.roll(np.arange(97), 1)]), 97),
])  # fmt: skip
def test_orders_of_large_permutation_groups(make, order):
    G = make()
    assert G.is_finite and G.is_compact and G.order == order
    with pytest.raises(GroupError, match=r"more than 50 elements \(order [0-9]+\), too many to list them"):
        G.elements(50)


def test_orders_of_elements_are_exact_however_large():
    cycles, at = [], 0
    for p in (2, 3, 5, 7, 11, 13, 17, 19):
        cycles.append(tuple(range(at, at + p)))
        at += p
    G = MatrixGroup.from_permutations("cyclic", [cycles], points=at)
    assert G.order == 2 * 3 * 5 * 7 * 11 * 13 * 17 * 19
    g = G.sample(5, 0)
    same(g.matrix @ g.inverse.matrix, np.broadcast_to(np.eye(at), (5, at, at)))


def test_a_stabiliser_chain_counts_as_brute_force_does():
    for make in (groups.Oh, groups.Ih, lambda: groups.S(5), lambda: groups.B(3), lambda: groups.Dnd(5)):
        assert len(make().elements()) == make().order


@pytest.mark.parametrize(("permutations", "points", "match"), [
    ([[0, 0, 1]], None, r"\[0\] are images of several points, \[2\] of none"),
    ([[1, 2, 3]], None, "counted from 0"), ([[0, 1], [1, 2, 0]], None, "different numbers"),
    ([0, 1, 2], None, "not one permutation"), ([[0.5, 1]], None, "whole numbers"), ([[(0, 1)]], None, "pass points"),
    ([[(0, 1), (1, 2)]], 3, "disjoint"), ([[(0, 3)]], 3, "within 0..2"), ([], None, "pass points"),
    ([[0, 1]], 3, "expected 3"), ([[0]], 0, "positive"), ([[1, 0], [0, 2]], None, r"permutations\[1\]"),
])  # fmt: skip
def test_what_is_no_permutation_is_refused(permutations, points, match):
    with pytest.raises(GroupError, match=match):
        MatrixGroup.from_permutations("P", permutations, points)


# ---- products ---------------------------------------------------------------------------------------------------


def test_direct_products():
    G = groups.Direct(groups.Oh(), groups.C(5), groups.S(3))
    assert (G.d, G.order) == (8, 48 * 5 * 6)
    mixed = groups.Direct(groups.SO(3), groups.D(4))
    assert (mixed.d, len(mixed.lie_algebra), mixed.order) == (5, 3, None)
    assert len(equivariant_basis(V(mixed), V(mixed))) == 2
    assert groups.Direct(groups.C(4)) == groups.C(4)


def test_tensor_products_act_by_kronecker_products():
    G = groups.Tensor(groups.C(3), groups.C(5))
    assert (G.d, G.order) == (4, 15)
    same(G.discrete_generators[1], np.kron(np.eye(2), groups.C(5).discrete_generators[0]))
    assert groups.Tensor(groups.D(4), groups.D(4)).order == 32, "(-1) ⊗ (-1) = 1"
    rotations = groups.Tensor(groups.SO(2), groups.SO(3))
    same(rotations.lie_algebra[0], np.kron(groups.SO(2).lie_algebra[0], np.eye(3)))
    assert len(equivariant_basis(V(rotations), V(rotations))) == 2


@pytest.mark.parametrize(("group", "m"), [(groups.C(4), 3), (groups.S(3), 2), (groups.D(3), 3), (groups.Oh(), 2)])
def test_wreath_products_with_symmetric_groups(group, m):
    G = groups.Wreath(group, groups.S(m))
    assert (G.d, G.order) == (group.d * m, group.order**m * factorial(m))


def test_wreath_products_with_intransitive_and_continuous_parts():
    pair = MatrixGroup.from_permutations("pair", [[1, 0, 2]])
    assert groups.Wreath(groups.C(3), pair).order == 27 * 2
    assert groups.Wreath(groups.C(3), groups.Trivial(2)).order == 9
    mirror = MatrixGroup("mirror", [[[-1]]])
    assert groups.Wreath(mirror, groups.S(4)).order == groups.B(4).order == 384
    assert len(groups.Wreath(groups.SO(3), groups.S(2)).lie_algebra) == 6
    with pytest.raises(GroupError, match=r"discrete_generators\[0\] of C\(4\) is not a permutation"):
        groups.Wreath(groups.C(3), groups.C(4))
    with pytest.raises(GroupError, match="Lie algebra"):
        groups.Wreath(groups.C(3), groups.SO(2))


def test_semidirect_products_have_the_order_of_the_product():
    assert groups.Semidirect(groups.C(5), groups.C(2), [np.diag([-1.0, 1.0])]).order == 10
    klein = MatrixGroup("V4", [np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, -1.0, -1.0])])
    cycle = np.roll(np.eye(3), 1, axis=0)
    assert groups.Semidirect(klein, groups.C(3), [cycle]).order == 12
    twice = groups.Semidirect(groups.C(4), groups.C(4), [SWAP])  # the action has a kernel, the product has not
    assert twice.order == 16


def test_semidirect_product_multiplies_by_the_action():
    G = groups.Semidirect(groups.C(5), groups.C(2), [np.diag([-1.0, 1.0])])
    n, h = G.discrete_generators
    same(h @ n @ np.linalg.inv(h), np.linalg.inv(n))


def test_semidirect_products_of_infinite_groups():
    turns = groups.Semidirect(groups.SO(2), groups.C(2), [np.diag([-1.0, 1.0])])
    assert len(turns.lie_algebra) == 1 and turns.is_compact
    flipped = groups.Semidirect(groups.O(2), groups.C(2), [SWAP])
    assert flipped.d == 4
    scaled = groups.Semidirect(groups.Unipotent(2), groups.Scale(1), [np.diag([1.0, 0.0])])
    assert len(scaled.lie_algebra) == 2
    assert groups.Semidirect(SHEAR, groups.C(2), [np.diag([-1.0, 1.0])]).d == 4


@pytest.mark.parametrize(("normal", "group", "action", "match"), [
    (groups.C(4), groups.C(3), [groups.C(3).discrete_generators[0] * 2], "no homomorphism"),
    (groups.D(4), groups.C(3), [groups.C(3).discrete_generators[0]], r"discrete_generators\[0\].*not normalise"),
    (groups.C(4), groups.C(3), [SWAP], "order 6 instead of 3"),
    (groups.SO(2), groups.C(2), [np.diag([1.0, 2.0])], r"does not normalise SO\(2\)"),
    (groups.O(2), groups.SO(2), [np.diag([1.0, 2.0])], r"lie_algebra\[0\]"),
    (groups.D(4), groups.SO(2), groups.SO(2).lie_algebra, "out of its component"),
    (SHEAR, groups.Scale(1), [np.diag([1.0, 0.0])], "out of its component"),
    (SHEAR, MatrixGroup("2^Z", [[[2.0]]]), [np.diag([2.0, 1.0])], "is the image of"),
    (groups.C(4), groups.C(2), [np.zeros((2, 2))], "not invertible"),
    (groups.C(4), groups.C(2), [], "one for each"), (groups.C(4), groups.C(2), [np.eye(3)], "one for each"),
    (groups.Trivial(3), groups.SO(3), 2 * groups.SO(3).lie_algebra, "no homomorphism"),
])  # fmt: skip
def test_wrong_actions_are_refused(normal, group, action, match):
    with pytest.raises(GroupError, match=match):
        groups.Semidirect(normal, group, action)


def test_affine_groups():
    assert groups.Affine(groups.SO(3)) == groups.SE(3)
    assert groups.Affine(groups.Opq(1, 3)) == groups.Poincare(3)
    G = groups.Affine(groups.C(4))
    assert (G.d, len(G.lie_algebra), len(G.discrete_generators)) == (3, 2, 1)


@pytest.mark.parametrize("make", [groups.Direct, groups.Tensor, lambda: groups.Wreath(groups.C(3), 4),
                                  lambda: groups.Semidirect("C4", groups.C(2), [SWAP])])  # fmt: skip
def test_products_take_groups(make):
    with pytest.raises(GroupError, match="takes MatrixGroups"):
        make()


# ---- stabilisers ------------------------------------------------------------------------------------------------

CUBIC = np.zeros((3, 3, 3, 3))
CUBIC[range(3), range(3), range(3), range(3)] = 1


@pytest.mark.parametrize(("group", "kept", "order"), [
    (groups.Oh(), {"tensors": [[0, 0, 1]]}, 8), (groups.Oh(), {"tensors": [[1, 1, 1]]}, 6),
    (groups.Oh(), {"tensors": [[1, 2, 3]]}, 1), (groups.Oh(), {"subspaces": [[[0, 0, 1]]]}, 16),
    (groups.Oh(), {"tensors": [np.diag([1, 2, 2])]}, 16), (groups.Oh(), {"forms": [np.diag([1, 2, 3])]}, 8),
    (groups.Ih(), {"subspaces": [[[0, 0, 1]]]}, 8), (groups.Ico(), {"subspaces": [[[0, 0, 1], [0, 1, 0]]]}, 4),
    (groups.Oh(), {"maps": [groups.SO(3).lie_algebra[0]]}, 8), (groups.S(5), {"tensors": [[1, 1, 0, 0, 0]]}, 12),
    (groups.Oh(), {}, 48), (groups.B(3), {"tensors": [CUBIC]}, 48),
])  # fmt: skip
def test_stabilisers_in_finite_groups(group, kept, order):
    G = groups.Stabiliser(group, **kept)
    assert G.order == order
    assert len(G.discrete_generators) <= 6


TETRAHEDRAL = np.zeros((3, 3, 3))
for axes in permutations(range(3)):
    TETRAHEDRAL[axes] = 1
TURN = np.linalg.qr(np.random.default_rng(7).standard_normal((3, 3)))[0]
COMPLEX = np.kron([[0, -1], [1, 0]], np.eye(2))  # i on realified C^2
PAULI = np.kron([[0, -1], [1, 0]], np.diag([1, -1]))  # i σ_z


def turned(t, g=TURN):
    for axis in range(np.ndim(t)):
        t = np.moveaxis(np.tensordot(g, t, (1, axis)), 0, axis)
    return t


def components(G, dimension):
    """The number of components, by the connected part's dimension and the listed products of discrete generators.

    Elements of one component are joined by one that is a product of two exponentials."""
    from emkernel.groups._algebra import closure, is_connected_to_one

    algebra = closure(G)
    assert len(algebra) == dimension
    found = [np.eye(G.d)]
    for h in found:
        for g in (g @ h for g in G.discrete_generators):
            if not any(is_connected_to_one(np.linalg.inv(f) @ g, algebra, tries=60) for f in found):
                found.append(g)
        assert len(found) <= 64
    return len(found)


@pytest.mark.parametrize(("group", "kept", "dimension", "many"), [
    (groups.SO(3), {"tensors": [[0, 0, 1]]}, 1, 1), (groups.O(3), {"tensors": [[0, 0, 1]]}, 1, 2),
    (groups.O(3), {"tensors": [np.diag([0, 0, 1])]}, 1, 4), (groups.SO(3), {"subspaces": [[[0, 0, 1]]]}, 1, 2),
    (groups.O(3), {"tensors": [turned(np.diag([0, 0, 1]))]}, 1, 4), (groups.SO(4), {"tensors": [[1, 2, 0, 0]]}, 3, 1),
    (groups.SO(3), {"tensors": [CUBIC]}, 0, 24), (groups.O(3), {"tensors": [CUBIC]}, 0, 48),
    (groups.O(3), {"tensors": [turned(CUBIC)]}, 0, 48), (groups.O(3), {"tensors": [TETRAHEDRAL]}, 0, 24),
    (groups.SO(3), {"tensors": [turned(TETRAHEDRAL)]}, 0, 12), (groups.O(3), {"forms": [np.diag([1, 2, 3])]}, 0, 8),
    (groups.SO(3), {"forms": [np.diag([1, 2, 3])]}, 0, 4), (groups.SO(3), {}, 3, 1),
    (groups.O(4), {"maps": [COMPLEX]}, 4, 1), (groups.O(4), {"tensors": [np.kron(COMPLEX, COMPLEX).reshape((4,) * 4)
     .transpose(0, 2, 1, 3)]}, 4, 2), (groups.SU(2), {"tensors": [[1, 0, 0, 0]]}, 0, 1),
    (groups.SU(2), {"maps": [PAULI]}, 1, 1), (groups.U(2), {"tensors": [[1, 0, 0, 0]]}, 1, 1),
    (groups.SU(2), {"tensors": [np.kron(PAULI, PAULI).reshape((4,) * 4).transpose(0, 2, 1, 3)]}, 1, 2),
    (groups.GL(3), {"forms": [np.eye(3)]}, 3, 2), (groups.GL(4), {"forms": [np.diag([1, -1, -1, -1])]}, 6, 4),
    (groups.GL(4), {"forms": [COMPLEX]}, 10, 1), (groups.GL(4), {"maps": [COMPLEX]}, 8, 1),
    (groups.Lorentz(), {"tensors": [[1, 0, 0, 0]]}, 3, 2), (groups.Lorentz(), {"subspaces": [[[1, 0, 0, 0]]]}, 3, 4),
    (groups.Lorentz(), {"tensors": [[0, 0, 0, 1]]}, 3, 4),
])  # fmt: skip
def test_stabilisers_in_infinite_groups(group, kept, dimension, many, recwarn):
    G = groups.Stabiliser(group, **kept)
    assert not recwarn.list
    assert components(G, dimension) == many
    assert len(G.discrete_generators) <= 6
    if not dimension:
        assert G.order == many
    for g in G.sample(10, 0).matrix:
        for form in kept.get("forms", ()):
            same(g.T @ form @ g / np.abs(g).max() ** 2, form / np.abs(g).max() ** 2)
        for m in kept.get("maps", ()):
            same(g @ m, m @ g)
        for t in kept.get("tensors", ()):
            same(turned(t, g), t)


def test_a_stabiliser_in_skew_coordinates():
    skew = np.array([[1.0, 0.4, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.5]])
    back = np.linalg.inv(skew)
    G = MatrixGroup("O(3)'", skew @ groups.O(3).discrete_generators @ back, skew @ groups.O(3).lie_algebra @ back)
    assert groups.Stabiliser(G, tensors=[turned(CUBIC, skew)]).order == 48
    assert groups.Stabiliser(G, maps=[skew @ np.diag([1, 2, 3]) @ back]).order == 8


LINE = MatrixGroup("line", lie_algebra=[np.kron(np.diag([1, 2**0.5]), [[0, -1], [1, 0]])])  # dense in a torus
TURNING = MatrixGroup("turning", [np.kron(np.eye(2), turn(1.0))], [np.kron(np.diag([0, 1]), [[0, -1], [1, 0]])])


@pytest.mark.parametrize(("group", "kept", "match"), [
    (LINE, {"tensors": [[1, 0, 0, 0]]}, "closed"), (TURNING, {"tensors": [[0, 0, 1, 0]]}, "finitely many"),
    (groups.Lorentz(), {"tensors": [[1, 1, 0, 0]]}, "smaller"),
    (groups.GL(3), {"forms": [np.diag([1, 2, 3])]}, "smaller"),
    (groups.GL(3), {"subspaces": [[[1, 0, 0]], [[1, 0, 0], [0, 1, 0]]]}, "smaller"),
    (groups.SE(2), {"subspaces": [[[0, 1, 0]]]}, "neither compact nor closed"),
    (MatrixGroup("2^Z", [2 * np.eye(2)], groups.SO(2).lie_algebra), {"subspaces": [[[1, 0]]]}, "in the component"),
])  # fmt: skip
def test_stabilisers_say_what_they_do_not_know(group, kept, match):
    with pytest.warns(UserWarning, match=match):
        groups.Stabiliser(group, **kept)


def test_stabilisers_say_when_random_elements_do_not_reach_it_often(monkeypatch):
    from emkernel.groups import stabiliser

    monkeypatch.setattr(stabiliser, "IN_A_ROW", 10_000)
    monkeypatch.setattr(stabiliser, "TRIES", 2)
    with pytest.warns(UserWarning, match="times in a row only"):
        assert groups.Stabiliser(groups.O(3), tensors=[CUBIC]).order == 48


@pytest.mark.parametrize(("kept", "match"), [
    ({"tensors": [[1, 0]]}, r"tensors\[0\] has shape \(2,\)"), ({"forms": [[0, 0, 1]]}, r"forms\[0\]"),
    ({"tensors": [[0, 0, 0]]}, "not zero"), ({"maps": [np.eye(2)]}, r"maps\[0\]"),
    ({"subspaces": [[0, 0, 1]]}, r"subspaces\[0\]"), ({"tensors": [[0, 0, np.nan]]}, "finite"),
])  # fmt: skip
def test_what_cannot_be_kept_is_refused(kept, match):
    with pytest.raises(GroupError, match=match):
        groups.Stabiliser(groups.Oh(), **kept)


def test_stabilisers_refuse_what_they_cannot_decide():
    with pytest.raises(GroupError, match="up to few digits"):
        groups.Stabiliser(groups.SO(3), forms=[np.diag([1.0, 1.0, 1 + 1e-7])])
    with pytest.raises(GroupError, match="at most 20000"):
        groups.Stabiliser(groups.S(12), tensors=[np.arange(12.0)])
