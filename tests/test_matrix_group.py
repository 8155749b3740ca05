"""Matrix groups: what is refused, what is recognised, and the words that elements are kept as."""

import copy
import json
import os
import pickle
import random
from math import factorial, pi

import numpy as np
import pytest
import scipy.linalg
import torch
from oracles import closure, run
from tables import (
    BOOST,
    COMPACT,
    CYCLE,
    FIFTH,
    FINITE,
    NILPOTENT,
    QUATERNION_I,
    QUATERNION_W,
    TABLE,
    blocks,
    group,
    permutation,
    skew_basis,
    so,
    su,
    turn,
)

from emkernel import GroupError, MatrixGroup, V, equivariant_basis

every_group = pytest.mark.parametrize("name", TABLE)
EXACT_ICOSAHEDRAL = [CYCLE, FIFTH]


def symmetric_group(n):
    return MatrixGroup(f"S{n}", [permutation([1, 0, *range(2, n)]), permutation([*range(1, n), 0])])


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "message"), [
    ({"discrete_generators": [np.zeros((2, 2))]}, r"discrete_generators\[0\] is not invertible"),
    ({"discrete_generators": [np.eye(2), [[1, 2], [2, 4]]]}, r"discrete_generators\[1\] is not invertible"),
    ({"discrete_generators": [[[1j, 0], [0, 0]]]}, "not invertible"),
    ({"discrete_generators": np.eye(2)}, "pass a list of matrices"),
    ({"lie_algebra": np.eye(2)}, "pass a list of matrices"),
    ({"discrete_generators": [np.eye(2)[:1]]}, r"shape \(1, 2\)"),
    ({"lie_algebra": [np.zeros((2, 2, 2))]}, r"lie_algebra\[0\] has shape \(2, 2, 2\)"),
    ({"discrete_generators": [[[1, np.nan], [0, 1]]]}, "not finite"),
    ({"lie_algebra": [[[0, np.inf], [0, 0]]]}, r"lie_algebra\[0\] has entries that are not finite"),
    ({"discrete_generators": [[["a", "b"], ["c", "d"]]]}, "not a matrix of numbers"),
    ({"lie_algebra": [[[1, 2], [3]]]}, "not a matrix of numbers"),
    ({"discrete_generators": [np.eye(2), np.eye(3)]}, r"different sizes \[2, 3\]"),
    ({"discrete_generators": [np.eye(2)], "lie_algebra": [np.zeros((3, 3))]}, r"different sizes \[2, 3\]"),
    ({"discrete_generators": [np.eye(2)], "d": 3}, r"different sizes \[2, 3\]"),
    ({}, "pass d="),
    ({"d": 0}, "at least 1"),
    ({"d": -2}, "at least 1"),
])  # fmt: skip
def test_impossible_generators_are_refused(arguments, message):
    with pytest.raises(GroupError, match=message):
        MatrixGroup("wrong", **arguments)


def test_messages_name_the_group():
    with pytest.raises(GroupError, match="my group"):
        MatrixGroup("my group", [np.zeros((2, 2))])


@pytest.mark.parametrize("digits", [3, 4, 5, 6, 8, 10])
def test_few_digits_are_noticed_and_polished(digits):
    typed = [np.round(h, digits) for h in EXACT_ICOSAHEDRAL]
    with pytest.raises(GroupError, match=r"discrete_generators\[1\] misses order 5 .* few digits"):
        MatrixGroup("I", typed)
    repaired = MatrixGroup.polished("I", typed)
    assert repaired.order == 60
    assert np.abs(repaired.discrete_generators - typed).max() < 2 * 10.0**-digits
    turns, fifth = repaired.discrete_generators
    for word, order in ((turns, 3), (fifth, 5), (turns @ fifth, 5), (turns @ fifth @ fifth, 3)):
        if order == 5 and np.abs(np.linalg.matrix_power(word, 5) - np.eye(3)).max() > 0.1:
            order = 2
        assert np.abs(np.linalg.matrix_power(word, order) - np.eye(3)).max() < 1e-12
    # closes to rounding: the sixty products are sixty
    elements = repaired.elements().matrix
    products = elements[:, None] @ elements
    distance = np.abs(products[:, :, None] - elements).max((-1, -2)).min(-1)
    assert distance.max() < 1e-12


@pytest.mark.parametrize(("generators", "order"), [
    ([turn(2 * pi / 7)], 7), ([turn(2 * pi / 5), np.diag([-1.0, 1.0])], 10), ([turn(2 * pi / 60)], 60),
    (skew_basis(3) @ EXACT_ICOSAHEDRAL @ np.linalg.inv(skew_basis(3)), 60),
])  # fmt: skip
def test_polishing_finds_the_group_that_was_meant(generators, order):
    typed = [np.round(h, 6) for h in generators]
    with pytest.raises(GroupError, match="few digits"):
        MatrixGroup("typed", typed)
    repaired = MatrixGroup.polished("typed", typed)
    assert repaired.order == order
    assert np.abs(repaired.discrete_generators - generators).max() < 1e-3


def test_polishing_keeps_complex_generators_complex():
    typed = [QUATERNION_I, np.diag(np.exp([2j * pi / 3, -2j * pi / 3])).round(5)]
    repaired = MatrixGroup.polished("diagonal", typed)
    assert (repaired.d, repaired.order) == (4, 12)


def test_polishing_exact_generators_changes_nothing():
    repaired = MatrixGroup.polished("I", EXACT_ICOSAHEDRAL)
    np.testing.assert_allclose(repaired.discrete_generators, EXACT_ICOSAHEDRAL, atol=1e-14)


def test_polishing_refuses_what_is_near_no_finite_group():
    with pytest.raises(GroupError, match="do not close"):
        MatrixGroup.polished("turn by one radian", [turn(1.0)], max_order=100)


def test_polishing_does_not_take_a_small_turn_for_the_identity():
    with pytest.raises(GroupError):
        MatrixGroup.polished("C1000", [turn(2 * pi / 1000).round(5)])


def test_trust_digits_takes_generators_as_they_are():
    typed = [np.round(h, 5) for h in EXACT_ICOSAHEDRAL]
    g = MatrixGroup("as typed", typed, trust_digits=True)
    np.testing.assert_array_equal(g.discrete_generators, typed)
    assert g.order is None


def test_single_precision_generators_are_noticed():
    with pytest.raises(GroupError, match="misses order 7"):
        MatrixGroup("C7", [turn(2 * pi / 7).astype(np.float32)])


# ---- what is accepted -------------------------------------------------------------------------------------------


def test_generators_may_be_lists_arrays_or_tensors():
    quarter = [[0, -1], [1, 0]]
    kinds = (
        quarter,
        np.array(quarter),
        np.float32(quarter),
        torch.tensor(quarter),
        torch.tensor(quarter).double(),
    )
    made = [MatrixGroup("C4", [m]) for m in kinds]
    made.append(MatrixGroup("C4", np.array([quarter])))
    assert len({g.digest for g in made}) == 1
    assert made[0].discrete_generators.dtype == np.float64


def test_generators_are_copied_and_frozen():
    mine = np.array([[0.0, -1.0], [1.0, 0.0]])
    g = MatrixGroup("C4", [mine])
    digest = g.digest
    mine[0, 0] = 7
    assert MatrixGroup("again", g.discrete_generators).digest == digest
    with pytest.raises(ValueError, match="read-only"):
        g.discrete_generators[0, 0, 0] = 7


def test_complex_generators_become_real_of_twice_the_size():
    z = np.array([[1 + 2j, 3j], [0.5, 1 - 1j]])
    g = MatrixGroup("complex", [z], [1j * np.eye(2)], trust_digits=True)
    assert g.d == 4
    np.testing.assert_array_equal(g.discrete_generators[0], np.block([[z.real, -z.imag], [z.imag, z.real]]))
    np.testing.assert_array_equal(g.lie_algebra[0], np.kron([[0, -1], [1, 0]], np.eye(2)))
    assert MatrixGroup("1", [np.eye(2) + 0j], d=2).d == 4


def test_real_and_complex_lists_go_together():
    g = MatrixGroup("U(1) and conjugation by -1", [-np.eye(2)], [1j * np.eye(2)])
    assert g.d == 4
    assert g.discrete_generators.shape == g.lie_algebra.shape == (1, 4, 4)


def test_complex_form_is_a_homomorphism():
    for p, q in ((QUATERNION_I, QUATERNION_W), (QUATERNION_W, QUATERNION_W)):
        a, b, ab = MatrixGroup("three", [p, q, p @ q]).discrete_generators
        np.testing.assert_allclose(ab, a @ b, atol=1e-15)


# ---- identity ---------------------------------------------------------------------------------------------------


@every_group
def test_digest_is_of_the_generators_alone(name):
    g = group(name)
    again = MatrixGroup("another name", g.discrete_generators, g.lie_algebra, d=g.d, trust_digits=True)
    assert again == g
    assert hash(again) == hash(g)
    assert again.digest == g.digest == TABLE[name].make().digest


def test_digest_tells_the_table_apart():
    assert len({group(name).digest for name in TABLE}) == len(TABLE)


def test_digest_depends_on_every_generator():
    h = a = so(2)[0]
    groups = [
        MatrixGroup("g", *lists, d=2)
        for lists in (([h],), ([h @ h],), ([], [a]), ([h], [a]), ([h, h], [a]), ([h], [2 * a]), ([a],), ([],))
    ]
    assert len({g.digest for g in groups}) == len(groups) - 1  # h and a are one matrix
    assert groups[0] == groups[6]
    assert MatrixGroup("1", d=2) != MatrixGroup("1", d=3)
    tiny = h + np.array([[0, 0], [0, 1e-16]])
    assert MatrixGroup("g", [tiny]) != MatrixGroup("g", [h])


def test_signed_zeros_are_the_same_number():
    assert MatrixGroup("a", [[[0.0, -1.0], [1.0, 0.0]]]) == MatrixGroup("b", [[[-0.0, -1.0], [1.0, -0.0]]])


def test_a_group_is_not_its_name():
    assert MatrixGroup("G", [turn(pi / 2)]) != MatrixGroup("G", [turn(2 * pi / 3)])
    assert MatrixGroup("G", [turn(pi / 2)]) != "G"


@pytest.mark.parametrize("name", ["Th", "O(1,3)", "2T", "trivial"])
def test_copies_and_pickles_are_the_same_group(name):
    g = group(name)
    for other in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert other == g
        assert other.order == g.order
        np.testing.assert_array_equal(other.sample(3, 0).matrix, g.sample(3, 0).matrix)


# ---- size -------------------------------------------------------------------------------------------------------


@every_group
def test_order_and_compactness(name):
    g, row = group(name), TABLE[name]
    assert g.order == row.order
    assert g.is_finite == (row.order is not None)
    assert g.is_compact == row.compact


@pytest.mark.parametrize("name", [n for n in FINITE if TABLE[n].order <= 120])
def test_elements_are_all_products_once(name):
    g = group(name)
    listed = g.elements()
    found = closure(g.discrete_generators, g.d)
    assert len(listed) == len(found) == TABLE[name].order
    np.testing.assert_array_equal(listed.matrix[0], np.eye(g.d))
    distance = np.abs(listed.matrix[:, None] - found).max((-1, -2))
    assert distance.min(1).max() < 1e-9 * np.abs(found).max()
    assert len(set(distance.argmin(1))) == len(found)


@pytest.mark.parametrize(("make", "order"), [
    (lambda: symmetric_group(7), factorial(7)), (lambda: symmetric_group(10), factorial(10)),
    (lambda: MatrixGroup("C12345", [turn(2 * pi / 12345)]), 12345),
    (lambda: MatrixGroup("C1000^k", [turn(2 * pi * 333 / 1000)]), 1000),
    (lambda: MatrixGroup("D100", [turn(2 * pi / 100), np.diag([-1.0, 1.0])]), 200),
    (lambda: MatrixGroup("two mirrors", [np.diag([1.0, -1.0]), turn(2 * pi / 9) @ np.diag([1.0, -1.0])]), 18),
    (lambda: MatrixGroup("-1", [[[-1.0]]]), 2),
    (lambda: MatrixGroup("roots of unity", [[[np.exp(2j * pi / 30)]]]), 30),
    (lambda: MatrixGroup("Q8", [QUATERNION_I, np.array([[0, 1], [-1, 0]]) + 0j]), 8),
    (lambda: MatrixGroup("2I", list(_binary_icosahedral())), 120),
    (lambda: MatrixGroup("cube of four dimensions", [permutation([1, 0, 2, 3]), permutation([1, 2, 3, 0]),
                                                     np.diag([-1.0, 1, 1, 1])]), 384),
    (lambda: MatrixGroup("zero algebra", lie_algebra=[np.zeros((2, 2))]), 1),
    (lambda: MatrixGroup("identity twice", [np.eye(3), np.eye(3)]), 1),
])  # fmt: skip
def test_order_by_closed_form(make, order):
    assert make().order == order


def _binary_icosahedral():
    phi = (1 + 5**0.5) / 2
    one, i, j, k = (
        np.eye(2) + 0j,
        QUATERNION_I,
        np.array([[0, 1], [-1, 0]]) + 0j,
        np.array([[0, 1j], [1j, 0]]),
    )
    return (one + i + j + k) / 2, (phi * one + i / phi + j) / 2


def test_order_of_long_cycles():
    orders = run(
        """
        from math import pi
        from emkernel import MatrixGroup
        from tables import turn
        for n in (100_000, 1_000_000, 30_000):
            print(MatrixGroup("C", [turn(2 * pi / n)]).order, flush=True)
    """,
        timeout=15,
    )
    assert orders.split() == ["100000", "1000000", "30000"]


@pytest.mark.parametrize("generators", [
    [turn(1.0)], [turn(2 * pi * 2**0.5)], [np.diag([1.0, -1.0]), turn(1.0) @ np.diag([1.0, -1.0])],
    [turn(pi / 2), blocks(np.eye(1), np.eye(1)) @ turn(1.0)],
    [blocks(np.eye(1), turn(pi / 2)), blocks(turn(1.0), np.eye(1))],
])  # fmt: skip
def test_turns_by_irrational_angles_are_infinite_and_compact(generators):
    g = MatrixGroup("irrational", generators)
    assert (g.order, g.is_finite, g.is_compact) == (None, False, True)


def test_finite_generators_can_generate_a_group_that_is_not_compact():
    s = skew_basis(2)
    g = MatrixGroup("two quarter turns", [turn(pi / 2), s @ turn(pi / 2) @ np.linalg.inv(s)])
    assert (g.order, g.is_compact) == (None, False)


def test_part_of_an_algebra_generates_the_rest():
    g = MatrixGroup("SO(3) by two turns", lie_algebra=so(3)[:2])
    assert g.is_compact
    assert len(equivariant_basis((V**2)(g), (V**2)(g))) == 3


def test_elements_of_infinite_or_large_groups_are_not_listed():
    with pytest.raises(GroupError, match="infinite"):
        group("SO(3)").elements()
    with pytest.raises(GroupError, match="more than 100 elements"):
        group("S5").elements(max_order=100)
    with pytest.raises(GroupError, match="more than"):
        symmetric_group(10).elements()


# ---- compactness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPACT)
def test_invariant_form_is_positive_and_kept(name):
    g = group(name)
    form = g.invariant_form
    np.testing.assert_allclose(form, form.T, atol=1e-15)
    assert np.linalg.eigvalsh(form)[0] > 0
    assert np.trace(form) == pytest.approx(g.d)
    scale = np.linalg.cond(form)
    for m in g.sample(20, 1).matrix:
        assert np.abs(m.T @ form @ m - form).max() < 1e-12 * scale
    for a in g.lie_algebra:
        assert np.abs(a.T @ form + form @ a).max() < 1e-12 * scale


@pytest.mark.parametrize("name", COMPACT)
def test_orthogonal_basis_makes_the_group_orthogonal(name):
    g = group(name)
    basis, back = g.orthogonal_basis, np.linalg.inv(g.orthogonal_basis)
    np.testing.assert_allclose(basis.T @ basis, g.invariant_form, atol=1e-12)
    for m in basis @ g.sample(20, 1).matrix @ back:
        np.testing.assert_allclose(m.T @ m, np.eye(g.d), atol=1e-10)


def test_invariant_form_of_a_skew_basis_is_the_known_one():
    s = skew_basis(3)
    back = np.linalg.inv(s)
    expected = back.T @ back
    for name in ("skew octahedral", "skew SO(3)"):
        np.testing.assert_allclose(group(name).invariant_form, expected * 3 / np.trace(expected), atol=1e-10)


@pytest.mark.parametrize("name", [n for n in TABLE if n not in COMPACT])
def test_other_groups_have_no_positive_form(name):
    assert group(name).invariant_form is None
    assert group(name).orthogonal_basis is None


@pytest.mark.parametrize(("arguments", "compact"), [
    ({"lie_algebra": [[[1.0]]]}, False), ({"discrete_generators": [[[2.0]]]}, False),
    ({"discrete_generators": [1.001 * np.eye(2)]}, False), ({"discrete_generators": [np.eye(2) + NILPOTENT]}, False),
    ({"lie_algebra": [1e-3 * BOOST]}, False), ({"lie_algebra": [1e-3 * so(2)[0]]}, True),
    ({"lie_algebra": [1e3 * so(2)[0]]}, True), ({"lie_algebra": [blocks(so(2)[0], 2**0.5 * so(2)[0])]}, True),
    ({"lie_algebra": [np.kron(np.eye(2), so(2)[0]) + np.kron(NILPOTENT, np.eye(2))]}, False),
    ({"discrete_generators": [turn(1.0)], "lie_algebra": [so(2)[0]]}, True),
    ({"discrete_generators": [np.diag([2.0, 0.5])], "lie_algebra": [so(2)[0]]}, False),
])  # fmt: skip
def test_compactness_of_small_cases(arguments, compact):
    assert MatrixGroup("case", **arguments, trust_digits=True).is_compact == compact


# ---- words ------------------------------------------------------------------------------------------------------


def product_of_word(g):
    """The matrix of one element from its word, factor by factor."""
    out = np.eye(g.group.d)
    for coefs, index, power in zip(g.coefs, g.index, g.power):
        out = out @ scipy.linalg.expm(np.einsum("k,kij->ij", coefs, g.group.lie_algebra))
        if power:
            out = out @ np.linalg.matrix_power(g.group.discrete_generators[index], int(power))
    return out


def close(a, b, scale=1e-11):
    np.testing.assert_allclose(a, b, rtol=0, atol=scale * max(1.0, np.abs(b).max()) ** 2)


@every_group
def test_matrix_is_the_product_of_the_word(name):
    batch = group(name).sample(6, 0)
    assert batch.matrix.shape == (6, group(name).d, group(name).d)
    for g, m in zip(batch, batch.matrix):
        close(m, product_of_word(g))
        close(g.matrix, m)


@every_group
def test_inverse_and_product(name):
    g, h = group(name).sample(5, 0), group(name).sample(5, 1)
    eye = np.broadcast_to(np.eye(group(name).d), g.matrix.shape)
    scale = max(np.abs(g.matrix).max() * np.abs(g.inverse.matrix).max(), 1.0)
    close(g.matrix @ g.inverse.matrix, eye, 1e-11 * scale)
    close((g @ g.inverse).matrix, eye, 1e-11 * scale)
    close((g @ h).matrix, g.matrix @ h.matrix)
    close((g @ h).inverse.matrix, h.inverse.matrix @ g.inverse.matrix)
    close(g.inverse.inverse.matrix, g.matrix)
    close((g[0] @ h[1] @ g[2]).matrix, g[0].matrix @ h[1].matrix @ g[2].matrix)


@every_group
def test_identity(name):
    e, g = group(name).identity, group(name).sample(1, 0)[0]
    np.testing.assert_array_equal(e.matrix, np.eye(group(name).d))
    close((e @ g).matrix, g.matrix)
    np.testing.assert_array_equal(e.inverse.matrix, e.matrix)


@pytest.mark.parametrize("name", [n for n in FINITE if TABLE[n].order <= 24])
def test_samples_are_elements_and_reach_all_of_a_small_group(name):
    g, order = group(name), TABLE[name].order
    found = closure(g.discrete_generators, g.d)
    distance = np.abs(g.sample(40 * order, 0).matrix[:, None] - found).max((-1, -2))
    assert distance.min(1).max() < 1e-8
    assert len(set(distance.argmin(1))) == order


def test_samples_of_a_rotation_group_turn_by_any_angle():
    angle = np.arctan2(*group("SO(2) about z").sample(4000, 0).matrix[:, [1, 0], 0].T)
    counts, _ = np.histogram(angle, 8, (-pi, pi))
    assert counts.min() > 300


def test_samples_of_a_boost_are_boosts_of_order_one():
    rapidity = np.arccosh(np.maximum(group("SO+(1,1)").sample(1000, 0).matrix[:, 0, 0], 1))
    assert 0.1 < rapidity.mean() < 1.5
    assert rapidity.max() < 5


@pytest.mark.parametrize("name", ["Th", "SO(3)", "O(1,3)", "2T", "trivial", "shear"])
def test_samples_are_reproducible(name):
    g = group(name)
    for make in (lambda: torch.Generator().manual_seed(3), lambda: np.random.default_rng(3), lambda: 3):
        np.testing.assert_array_equal(g.sample(4, make()).matrix, g.sample(4, make()).matrix)
    if TABLE[name].order != 1:
        rng = torch.Generator().manual_seed(3)
        assert np.abs(g.sample(20, rng).matrix - g.sample(20, rng).matrix).max() > 0.1
        assert np.abs(g.sample(20, 3).matrix - g.sample(20, 4).matrix).max() > 0.1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = g.sample(4).matrix
        torch.manual_seed(5)
        np.testing.assert_array_equal(g.sample(4).matrix, first)


def test_elements_of_another_group_do_not_multiply():
    with pytest.raises(GroupError, match="cannot multiply"):
        group("SO(3)").sample(1, 0)[0] @ group("O(3)").sample(1, 0)[0]
    same = MatrixGroup("SO(3) by another name", lie_algebra=so(3)).sample(1, 0)[0]
    assert (group("SO(3)").sample(1, 0)[0] @ same).matrix.shape == (3, 3)


def test_batches_index_like_arrays():
    g = group("O(3)").sample(5, 0)
    assert len(g) == 5
    np.testing.assert_array_equal(g[1:3].matrix, g.matrix[1:3])
    np.testing.assert_array_equal(g[np.array([4, 0])].matrix, g.matrix[[4, 0]])
    assert len(list(g)) == 5
    assert group("O(3)").sample(0, 0).matrix.shape == (0, 3, 3)
    with pytest.raises(IndexError):
        g[0][0]
    with pytest.raises(TypeError):
        len(g[0])
    assert "O(3)" in repr(g)
    assert "2 discrete" in repr(group("O(1,3)"))


@pytest.mark.parametrize("algebra", [
    [[[1e-3, 1], [0, -1e-3]], [[1e-3, 0], [1, -1e-3]], [[1, 0], [0, -1]]],
    [100 * m for m in su(2)], [1e-6 * m for m in so(3)], [1e4 * BOOST],
])  # fmt: skip
def test_samples_stay_moderate_whatever_the_scale_of_the_generators(algebra):
    m = MatrixGroup("odd generators", lie_algebra=algebra).sample(200, 0).matrix
    assert np.isfinite(m).all()
    assert np.abs(m).max() < 1e4
    assert np.abs(m - np.eye(m.shape[-1])).max() > 0.1


# ---- nothing is disturbed ---------------------------------------------------------------------------------------


def global_state():
    """Everything that a library could change behind the user's back."""
    kind, key, *rest = np.random.get_state()  # noqa: NPY002 - users' own scripts still have it
    return {
        "random": random.getstate(),
        "numpy": (kind, key.tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS"),
        "errors": np.geterr(),
    }


def test_constructing_and_sampling_leaves_no_trace():
    before = global_state()
    g = MatrixGroup("fresh", [turn(2 * pi / 11), np.diag([-1.0, 1.0])])
    assert g.order == 22
    assert MatrixGroup(
        "skew", skew_basis(2) @ g.discrete_generators @ np.linalg.inv(skew_basis(2))
    ).is_compact
    g.sample(3, torch.Generator().manual_seed(0))
    g.sample(3, np.random.default_rng(0))
    assert global_state() == before


SOLVING = """
    import json, os
    import emkernel as ek
    from tables import group
    from test_matrix_group import global_state
    before = global_state()
    rep = ek.V(group("D7"))
    ek.equivariant_basis(rep * rep, rep * rep)
    after = global_state()
    import jax, sys
    assert "emlp" in sys.modules
    print(json.dumps({"changed": [k for k in before if before[k] != after[k]], "x64": jax.config.jax_enable_x64,
                      "devices": [d.platform for d in jax.devices()]}))
"""


@pytest.fixture(scope="module")
def trace_of_solving():
    pytest.importorskip("emlp")
    return json.loads(run(SOLVING, EMKERNEL_STORE=":memory:", JAX_PLATFORMS="tpu,cpu"))


def test_solving_leaves_settings_as_they_were(trace_of_solving):
    assert not trace_of_solving["x64"]
    assert set(trace_of_solving["devices"]) == {"cpu"}
    assert not {"torch", "dtype", "threads", "JAX_PLATFORMS", "errors"} & set(trace_of_solving["changed"])


def test_solving_leaves_random_states_as_they_were(trace_of_solving):
    assert trace_of_solving["changed"] == []


def test_the_platform_of_jax_is_not_left_in_the_environment(monkeypatch):
    pytest.importorskip("emlp")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    rep = MatrixGroup("fresh", [turn(2 * pi / 13)])
    equivariant_basis(V(rep), V(rep))
    assert "JAX_PLATFORMS" not in os.environ
