"""The algebra of representations, and the matrices behind its expressions."""

import copy
import pickle

import numpy as np
import pytest
import scipy.linalg
import torch
from tables import TABLE, group, turn

from emkernel import GivenRep, MatrixGroup, RepError, Scalar, T, V, irreps

every_group = pytest.mark.parametrize("name", TABLE)
EXPRESSIONS = {
    "Scalar": Scalar, "V": V, "V*": V.T, "sum": 2 * Scalar + V + V.T, "square": V**2, "product": V * V.T,
    "dual of a sum": (V + 2 * Scalar).T, "product of sums": (V + Scalar) * (Scalar + V.T),
    "T(1,1) + 3V": T(1, 1) + 3 * V, "maps": V >> (V + Scalar), "nothing": 0 * V,
}  # fmt: skip
each_expression = pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
SO3 = group("SO(3)")


def given(g, rep):
    """The same representation, known only by its images of the generators."""
    bound = rep(g)
    n = bound.size
    return GivenRep(
        g,
        np.array([bound.rho(h) for h in g.discrete_generators]).reshape(-1, n, n),
        np.array([bound.drho(a) for a in g.lie_algebra]).reshape(-1, n, n),
        "given",
    )


def close(a, b, tol=1e-10):
    np.testing.assert_allclose(a, b, rtol=0, atol=tol * max(1.0, np.abs(b).max(initial=0)))


# ---- a representation is a homomorphism -------------------------------------------------------------------------


@every_group
@each_expression
def test_homomorphism_on_words(name, expression):
    g, rep = group(name), expression(group(name))
    a, b = g.sample(3, 0), g.sample(3, 1)
    assert rep.rho(a).shape == (3, rep.size, rep.size)
    assert rep.rho(a).dtype == np.float64
    scale = 1e-12 * max(1, np.abs(rep.rho(a)).max(initial=0)) * max(1, np.abs(rep.rho(b)).max(initial=0))
    close(rep.rho(a @ b), rep.rho(a) @ rep.rho(b), max(scale, 1e-11))
    close(rep.rho(g.identity), np.eye(rep.size))
    close(rep.rho(a.inverse) @ rep.rho(a), np.stack([np.eye(rep.size)] * 3), max(100 * scale, 1e-10))
    close(rep.rho(a)[1], rep.rho(a[1]))


@every_group
def test_a_matrix_will_do_where_the_word_is_not_needed(name):
    g = group(name).sample(3, 0)
    for expression in EXPRESSIONS.values():
        rep = expression(group(name))
        close(rep.rho(g.matrix), rep.rho(g))
        close(rep.rho(g[0].matrix.tolist()), rep.rho(g[0]))


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if len(group(n).lie_algebra)])
@each_expression
def test_drho_is_the_derivative_of_rho(name, expression):
    rep = expression(group(name))
    rng = np.random.default_rng(0)
    algebra = group(name).lie_algebra
    for a in [*algebra, np.tensordot(rng.standard_normal(len(algebra)), algebra, 1)]:
        a = a / np.abs(a).max()
        close(rep.rho(scipy.linalg.expm(0.3 * a)), scipy.linalg.expm(0.3 * rep.drho(a)))
        h = 1e-5
        slope = (rep.rho(scipy.linalg.expm(h * a)) - rep.rho(scipy.linalg.expm(-h * a))) / (2 * h)
        close(rep.drho(a), slope, 1e-7)


@every_group
def test_words_and_given_images_agree(name):
    g = group(name)
    for expression in (V, V.T, V + Scalar, V * V.T):
        rep = given(g, expression)
        sample = g.sample(3, 0)
        close(rep.rho(sample), expression(g).rho(sample), 1e-10 * TABLE[name].condition ** 2)
        for a in g.lie_algebra:
            close(rep.drho(a), expression(g).drho(a))


def test_negative_control_wrong_images_are_no_homomorphism():
    g = group("S5")
    images = g.discrete_generators @ np.roll(np.eye(5), 1, 0)
    rep = GivenRep(g, images, name="wrong", verify=False)
    e = g.elements()
    assert (
        max(np.abs(rep.rho(a @ a.inverse) - np.eye(5)).max() for a in e[:20]) < 1e-12
    )  # words invert all the same
    table = [
        (rep.rho(a @ b), rep.rho(c))
        for a in e[1:4]
        for b in e[1:4]
        for c in e
        if np.abs((a @ b).matrix - c.matrix).max() < 1e-9
    ]
    assert max(np.abs(x - y).max() for x, y in table) > 0.5


# ---- dual, tensor, sums ------------------------------------------------------------------------------------------


@every_group
def test_dual(name):
    g, a = group(name), group(name).sample(1, 0)[0]
    for expression in EXPRESSIONS.values():
        rep = expression(g)
        close(rep.T.rho(a), np.linalg.inv(rep.rho(a)).T, 1e-9)
        close(rep.T.T.rho(a), rep.rho(a))
        assert rep.T.size == rep.size
        for x in g.lie_algebra:
            close(rep.T.drho(x), -rep.drho(x).T)


def test_dual_is_an_involution_on_expressions():
    for rep in (V, Scalar, V + Scalar, V * V, 3 * V, V * (V + Scalar), T(2, 1)):
        assert rep == rep.T.T
        assert rep(SO3) == rep(SO3).T.T
    assert Scalar == Scalar.T
    assert V.T != V
    assert (V * V).T == V.T * V.T
    assert 2 * V.T + Scalar == (2 * V + Scalar).T
    assert V.T(SO3) == V(SO3).T


@every_group
def test_tensor_product_is_row_major(name):
    g, a = group(name), group(name).sample(1, 0)[0]
    left, right = (V + Scalar)(g), V.T(g)
    close((left * right).rho(a), np.kron(left.rho(a), right.rho(a)))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(left.size), rng.standard_normal(right.size)
    product = np.array([x[i] * y[j] for i in range(left.size) for j in range(right.size)])
    moved = (left.rho(a) @ x)[:, None] * (right.rho(a) @ y)
    close((left * right).rho(a) @ product, moved.reshape(-1))
    for algebra in g.lie_algebra:
        close(
            (left * right).drho(algebra),
            np.kron(left.drho(algebra), np.eye(right.size)) + np.kron(np.eye(left.size), right.drho(algebra)),
        )


def test_sum_lists_terms_in_the_order_written():
    g, a = group("O(1,3)"), group("O(1,3)").sample(1, 0)[0]
    rep = (2 * V + Scalar + V.T + 0 * V + V)(g)
    m = a.matrix
    expected = scipy.linalg.block_diag(m, m, np.eye(1), np.linalg.inv(m).T, m)
    close(rep.rho(a), expected)
    assert [(n, str(t), s) for n, t, s in rep.slices] == [
        (2, "V", slice(0, 8)),
        (1, "Scalar", slice(8, 9)),
        (1, "V*", slice(9, 13)),
        (1, "V", slice(13, 17)),
    ]
    assert rep.size == 17
    assert sum(n * t.size for n, t in rep.terms) == rep.size


def test_copies_are_consecutive():
    g, a = group("SO(3)"), group("SO(3)").sample(1, 0)[0]
    m = a.matrix
    close((3 * V)(g).rho(a), scipy.linalg.block_diag(m, m, m))
    close((2 * (V + Scalar))(g).rho(a), scipy.linalg.block_diag(m, 1, m, 1))
    assert (3 * V)(g).terms == ((3, V(g)),)
    assert 2 * (3 * V) == 6 * V == V * 6 == 3 * V + 3 * V
    assert (V + V + Scalar).terms[0][0] == 2
    assert (V + Scalar + V).terms != (2 * V + Scalar).terms


def test_maps_are_matrices_row_by_row():
    """vec of W in rep_out >> has the layout W[i, j] at i |in| + j: ρ_out W ρ_in^-1."""
    g, a = group("O(1,3)"), group("O(1,3)").sample(1, 0)[0]
    rep_in, rep_out = V(g), (Scalar + V)(g)
    w = np.random.default_rng(0).standard_normal((5, 4))
    moved = rep_out.rho(a) @ w @ np.linalg.inv(rep_in.rho(a))
    close((rep_in >> rep_out).rho(a) @ w.reshape(-1), moved.reshape(-1))
    assert rep_in >> rep_out == rep_out * rep_in.T


@pytest.mark.parametrize(("p", "q"), [(0, 0), (1, 0), (0, 1), (2, 1), (0, 3), (3, 0)])
def test_tensors_of_rank_p_q(p, q):
    g, a = group("SL(2)"), group("SL(2)").sample(1, 0)[0]
    m, dual = a.matrix, np.linalg.inv(a.matrix).T
    expected = np.eye(1)
    for factor in [m] * p + [dual] * q:
        expected = np.kron(expected, factor)
    close(T(p, q)(g).rho(a), expected)
    assert T(p, q)(g).size == 2 ** (p + q)
    assert T(p) == T(p, 0) == V**p


def test_powers_and_scalars_are_neutral():
    assert Scalar == V**0
    assert V**1 == V
    assert V**3 == V * V * V == V * (V * V)
    assert Scalar * V == V * Scalar == V
    assert (V + Scalar) ** 2 == (V + Scalar) * (V + Scalar)
    assert (2 * Scalar) * V == 2 * V
    g, a = group("SO(3)"), group("SO(3)").sample(1, 0)[0]
    close(((V + Scalar) ** 2)(g).rho(a), np.kron((V + Scalar)(g).rho(a), (V + Scalar)(g).rho(a)))
    close((Scalar**4)(g).rho(a), np.eye(1))


def test_sum_of_a_list():
    assert sum([V, V, Scalar]) == 2 * V + Scalar
    assert sum([V(SO3), Scalar]) == (V + Scalar)(SO3)


def test_no_copies_are_nothing():
    for nothing in (0 * V, (0 * V)(SO3), 0 * V(SO3), 0 * (V + Scalar)(SO3)):
        assert nothing.terms == ()
        if nothing.group is not None:
            assert nothing.size == 0
            assert nothing.rho(SO3.sample(2, 0)).shape == (2, 0, 0)
            assert nothing.drho(SO3.lie_algebra[0]).shape == (0, 0)
    assert 0 * V + V == V
    assert (0 * V(SO3) + V).size == 3
    assert (V(SO3) * (0 * V)).size == 0
    assert str(0 * V) == "0"


# ---- binding ----------------------------------------------------------------------------------------------------


def test_binding_late_or_early_is_the_same():
    assert (8 * Scalar + 4 * V + 2 * V**2)(SO3) == 8 * Scalar(SO3) + 4 * V(SO3) + 2 * V(SO3) ** 2
    assert V(SO3) + Scalar == (V + Scalar)(SO3)
    assert Scalar + V(SO3) == (Scalar + V)(SO3)
    assert V * V(SO3) == (V * V)(SO3)
    assert (V >> V(SO3)) == (V >> V)(SO3)
    assert V(SO3)(SO3) == V(SO3)
    assert V(SO3).group == SO3


@pytest.mark.parametrize("ask", [
    lambda: V.size, lambda: (V + Scalar).size, lambda: V.rho(np.eye(3)), lambda: V.drho(np.zeros((3, 3))),
    lambda: V.images, lambda: (V * V.T).rho(np.eye(3)), lambda: (2 * V).slices,
])  # fmt: skip
def test_unbound_expressions_have_no_matrices(ask):
    with pytest.raises(RepError, match=r"not bound to a group; write rep\(G\)"):
        ask()


@pytest.mark.parametrize("combine", [
    lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a >> b, lambda a, b: (a + Scalar) * (b + Scalar),
])  # fmt: skip
def test_representations_of_different_groups_do_not_combine(combine):
    with pytest.raises(RepError, match="different groups"):
        combine(V(SO3), V(group("O(3)")))


def test_bound_representations_keep_their_group():
    with pytest.raises(RepError, match="already belongs"):
        V(SO3)(group("O(3)"))
    with pytest.raises(RepError, match="already belongs"):
        (V + Scalar)(SO3)(group("O(3)"))
    with pytest.raises(RepError, match="bound to a MatrixGroup"):
        V(3)
    with pytest.raises(RepError, match="bound to a MatrixGroup"):
        (V + V.T)("SO(3)")


def test_elements_of_another_group_are_refused():
    with pytest.raises(RepError, match=r"representation of SO\(3\), got an element of O\(3\)"):
        V(SO3).rho(group("O(3)").sample(1, 0)[0])
    with pytest.raises(RepError, match=r"shape \(2, 2\), expected \(3, 3\)"):
        V(SO3).rho(np.eye(2))
    with pytest.raises(RepError, match=r"shape \(3,\)"):
        V(SO3).drho(np.zeros(3))


@pytest.mark.parametrize("wrong", [
    lambda: 2.5 * V, lambda: -1 * V, lambda: V * "V", lambda: V + 1, lambda: V + None, lambda: V**-1, lambda: V**0.5,
    lambda: True * V, lambda: T(-1), lambda: T(1, -2),
    lambda: V >> 3,
])  # fmt: skip
def test_nonsense_is_refused(wrong):
    with pytest.raises((RepError, TypeError, AttributeError)):
        wrong()


# ---- identity ---------------------------------------------------------------------------------------------------


def test_equality_and_hash_are_by_content():
    again = MatrixGroup("SO(3) by another name", lie_algebra=SO3.lie_algebra)
    for expression in EXPRESSIONS.values():
        a, b = expression(SO3), expression(again)
        assert a == b
        assert hash(a) == hash(b)
        assert a != expression(group("O(3)")) or expression in (0 * V,)
        assert a != expression
    different = [V, V.T, V**2, V * V.T, 2 * V, V + Scalar, Scalar + V, Scalar, 2 * Scalar, V**3, 0 * V]
    assert len(set(different)) == len({rep(SO3) for rep in different}) == len(different)


def test_given_representations_are_equal_by_their_images():
    g = group("Th")
    a, b, c = given(g, V), given(g, V), given(g, V.T * V)
    assert a == b
    assert hash(a) == hash(b)
    assert a != c
    assert a != V(g)
    assert len({a, b, c}) == 2
    renamed = GivenRep(g, a.images.discrete, a.images.lie, "another name")
    assert renamed == a
    assert given(group("octahedral"), V) != a


@pytest.mark.parametrize("name", ["SO(3)", "Th", "Borel"])
def test_copies_and_pickles_are_the_same_representation(name):
    for rep in (*[e(group(name)) for e in EXPRESSIONS.values()], given(group(name), V)):
        for other in (copy.deepcopy(rep), pickle.loads(pickle.dumps(rep))):
            assert other == rep
            assert hash(other) == hash(rep)


def test_text_reads_like_the_expression():
    assert str((8 * Scalar + 4 * V + 2 * V**2)(SO3)) == "8Scalar + 4V + 2V^2"
    assert str(T(2, 1)) == "V^2·V*"
    assert repr(V.T) == "V*"
    assert str(V * (V + Scalar)) == "V·(V + Scalar)"


# ---- representations by their images ----------------------------------------------------------------------------


@pytest.mark.parametrize(("discrete", "lie", "message"), [
    ([np.eye(2)], [], r"discrete images have shape \(1, 2, 2\), expected \(2, n, n\)"),
    ([np.eye(2)] * 3, [], "expected"),
    (np.zeros((2, 2, 3)), [], "expected"),
    ([np.eye(2)] * 2, [np.eye(2)], "lie images"),
    ([np.eye(2), np.full((2, 2), np.nan)], [], "not finite"),
])  # fmt: skip
def test_given_images_must_fit_the_group(discrete, lie, message):
    with pytest.raises(RepError, match=message):
        GivenRep(group("T"), np.array(discrete), np.array(lie), "mine")


def test_given_images_need_the_word():
    with pytest.raises(RepError, match="the word"):
        given(SO3, V).rho(np.eye(3))


def test_given_algebra_is_known_on_its_span_only():
    rep = given(SO3, V)
    close(rep.drho(SO3.lie_algebra[0] + 2 * SO3.lie_algebra[2]), SO3.lie_algebra[0] + 2 * SO3.lie_algebra[2])
    with pytest.raises(RepError, match="not a combination"):
        rep.drho(np.eye(3))


def test_given_representations_take_part_in_the_algebra():
    g, a = SO3, SO3.sample(1, 0)[0]
    rep = given(g, V)
    close((rep * rep.T + 2 * rep).rho(a), ((V * V.T) + 2 * V)(g).rho(a), 1e-9)
    assert rep + V == rep + V(g)


def test_irreducibles_take_part_in_the_algebra():
    g = group("octahedral")
    one, *others = irreps(g, 2)
    rep = sum([2 * r for r in others], one)
    a, b = g.sample(2, 0)
    close(rep.rho(a @ b), rep.rho(a) @ rep.rho(b))
    assert rep.size == 1 + 2 * sum(r.size for r in others)
    assert [t for _, t in rep.terms] == [one, *others]


def test_tensors_of_torch_are_matrices_too():
    a = SO3.sample(1, 0)[0]
    close(V(SO3).rho(torch.as_tensor(a.matrix)), a.matrix)
    assert (
        MatrixGroup("C3", [turn(2 * np.pi / 3)]).discrete_generators.dtype
        == V(SO3).rho(a).dtype
        == np.float64
    )
