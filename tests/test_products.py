"""Groups from groups: products, stabilisers, and permutations, with orders and dimensions known on paper."""

from math import factorial

import numpy as np
import pytest

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
    with pytest.raises(GroupError, match="more than 50 elements"):
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


@pytest.mark.parametrize(("group", "kept", "dimension"), [
    (groups.SO(3), {"tensors": [[0, 0, 1]]}, 1), (groups.SO(4), {"tensors": [[1, 2, 0, 0]]}, 3),
    (groups.GL(3), {"forms": [np.eye(3)]}, 3), (groups.GL(4), {"forms": [np.diag([1, -1, -1, -1])]}, 6),
    (groups.GL(4), {"forms": [np.kron(np.eye(2), [[0, 1], [-1, 0]])]}, 10),
    (groups.GL(4), {"maps": [np.kron(np.eye(2), [[0, 1], [-1, 0]])]}, 8),
    (groups.O(4), {"maps": [np.kron(np.eye(2), [[0, 1], [-1, 0]])]}, 4),
    (groups.GL(3), {"subspaces": [[[1, 0, 0]], [[1, 0, 0], [0, 1, 0]]]}, 6),
    (groups.Lorentz(), {"tensors": [[1, 0, 0, 0]]}, 3), (groups.Lorentz(), {"tensors": [[1, 1, 0, 0]]}, 3),
    (groups.SO(3), {"tensors": [CUBIC]}, 0), (groups.SO(3), {}, 3),
])  # fmt: skip
def test_stabilisers_in_infinite_groups(group, kept, dimension):
    G = groups.Stabiliser(group, **kept)
    assert len(G.lie_algebra) == dimension
    for g in G.sample(10, 0).matrix:
        for form in kept.get("forms", ()):
            same(g.T @ form @ g, form)
        for m in kept.get("maps", ()):
            same(g @ m, m @ g)
        for t in kept.get("tensors", ()):
            if np.ndim(t) == 1:
                same(g @ t, t)


def test_stabilisers_keep_the_components_that_words_reach():
    O2 = groups.Stabiliser(groups.O(3), tensors=[[0, 0, 1]])
    assert set(np.round(np.linalg.det(O2.sample(50, 0).matrix))) == {-1, 1}
    whole = groups.Stabiliser(groups.Lorentz(), tensors=[[1, 0, 0, 0]])
    assert set(np.round(np.linalg.det(whole.sample(50, 0).matrix))) == {-1, 1}


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
