"""Generators with few digits: right, or refused with the digits as the reason; answered where they are meant."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import known, physical_units, rewritten, rounded
from tables import BOOST, NILPOTENT, turn
from test_properties import hom, judge, refused

from emkernel import GroupError, MatrixGroup, Scalar, SolverError, V, equivariant_basis, groups
from emkernel._digits import half_units, typed_digits
from emkernel._growth import grows
from emkernel.solver.irreps import irrep_table

NO_ERRORS = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))


def no(d):
    return np.zeros((0, d, d))


# ---- digits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entries", "digits", "errors"), [
    ([[0.866, -0.5], [0.5, 0.866]], 3, [[5e-4, 5e-4], [5e-4, 5e-4]]),
    ([[1.2346, 0.0], [0.0, 0.00012]], 5, [[5e-5, 0], [0, 5e-6]]),  # five decimals, not five digits of every entry
    ([[123450.0, 2.0], [0.0, 1.0]], 5, [[5, 5e-5], [0, 5e-5]]),  # no decimals: significant digits
    ([[1 / 3, 0.0], [0.0, 1.0]], 17, [[0, 0], [0, 0]]),
    ([[3.0, 0.125], [0.0, 1024.0]], 17, [[0, 0], [0, 0]]),
    ([[0.352, -0.936], [0.936, 0.352]], 17, [[0, 0], [0, 0]]),  # orthogonal to the last bit, hence meant
])  # fmt: skip
def test_digits_of_entries_leave_half_a_unit(entries, digits, errors):
    m = np.array([entries])
    assert typed_digits(m).tolist() == [digits]
    np.testing.assert_allclose(half_units(m, typed_digits(m))[0], errors, rtol=1e-9)


def test_single_precision_is_few_digits():
    m = np.array([[[0.1, 0.3], [0.7, 1.1]]], np.float32).astype(float)
    assert typed_digits(m).tolist() == [7]
    np.testing.assert_allclose(half_units(m, typed_digits(m)), m * 2.0**-24)


def test_one_generator_with_few_digits_is_seen_beside_computed_ones():
    m = np.array([turn(0.3), np.round(turn(0.7), 4), [[0.6, 0.25], [0.1, 1]]])
    assert typed_digits(m).tolist() == [17, 4, 4]  # one or two digits are as good as those beside them


def test_the_catalogue_is_not_taken_for_typed():
    for name, make in groups.catalogue().items():
        assert make()._written.fewest == 17, name


# ---- compact or not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [np.diag([2.0, 1]), np.eye(2) + NILPOTENT, [[1, 1], [1, 0]]], ids=str)
def test_elements_that_grow(m):
    assert grows(np.array([m], float), no(2), (NO_ERRORS[0], no(2)), 3e4)
    assert grows(no(2), np.array([BOOST]), (no(2), NO_ERRORS[1]), 3e4)


def test_growth_within_the_errors_is_none():
    typed = np.round(np.array([turn(0.3)]), 4)
    error = np.full((1, 2, 2), 5e-5)
    assert not grows(typed, no(2), (error, no(2)), 3e4)
    assert grows(typed, no(2), (0 * error, no(2)), 3e4)  # the control: |λ| = 0.99996 if it is meant
    assert not grows(np.array([turn(0.3)]), no(2), (1e-15 * np.ones((1, 2, 2)), no(2)), 3e4)


def test_translations_between_two_rotations_grow():
    about = np.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]])
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    both = np.array([quarter, about @ quarter @ np.linalg.inv(about)])
    assert grows(both, no(3), (0 * both, no(3)), 3e4)
    assert not grows(both[:1], no(3), (0 * both[:1], no(3)), 3e4)


# ---- few digits in skew bases and in units -----------------------------------------------------------------------

# name, rewriting, condition, seed, digits: an infinite or smaller group near the one that was meant
SKEW = [
    ("O(3)", [], 117, 4, 8), ("O(3)", [], 520, 2, 12), ("O(3)", [], 1.1, 3, 9), ("Oh", [physical_units], 60, 5, 5),
    ("2O", [physical_units], 150, 6, 4), ("O(2) x D3", [physical_units], 78, 7, 4), ("SO+(1,3)", [], 1, 8, 3),
    ("SO+(1,3)", [physical_units], 5, 9, 3), ("dilation", [], 1.8, 10, 4), ("dilation", [], 660, 11, 9),
    ("SO+(1,1)", [], 1.3, 12, 4), ("U(1) x U(1)", [], 520, 13, 10), ("U(1) of weights 1, 2", [], 40, 14, 10),
    ("SO(4)", [physical_units], 550, 15, 11), ("SU(2)", [], 600, 16, 12), ("SE(2)", [physical_units], 1.8, 17, 4),
    ("C360", [], 4, 18, 9), ("C10007", [], 1.3, 19, 13), ("C1000000", [], 1, 20, 4), ("shear", [], 1.9, 21, 9),
]  # fmt: skip


@pytest.mark.parametrize(("name", "steps", "condition", "seed", "digits"), SKEW)
def test_few_digits_in_a_skew_basis_are_right_or_refused_and_all_digits_are_answered(
    name, steps, condition, seed, digits
):
    h, a = rewritten(name, steps, condition, seed)
    for k in range(3):
        judge(name, *rounded(*rewritten(name, steps, condition, seed + 100 * k), digits), ((1, 0, 1), (2, 0, 0)))
    assert judge(name, h, a, ((1, 0, 1), (2, 0, 0))) <= (name in ("C10007", "C1000000"))


@pytest.mark.parametrize("name", ["O(3)", "Oh", "D5", "SU(2)", "SL(2)", "O(1,3)"])
def test_three_digits_in_a_skew_basis_are_refused(name):
    """The control: were nothing refused, the others would say nothing."""
    with pytest.raises((GroupError, SolverError)) as e:
        G = MatrixGroup(name, *rounded(*rewritten(name, [], 30.0, 1), 3), d=known(name).d)
        equivariant_basis((V**2)(G), Scalar(G))
    refused(e.value)


def test_single_precision_in_a_skew_basis_is_refused():
    h, a = rewritten("O(3)", [], 50.0, 3)
    single = [[m.astype(np.float32).astype(float) for m in x] for x in (h, a)]
    with pytest.raises(GroupError, match="7 digits"):
        _ = MatrixGroup("O(3)", *single).is_compact
    assert MatrixGroup("O(3)", h, a).is_compact


def test_a_rounded_shear_is_no_slow_rotation():
    h = np.array([[[0.8340755, 1.217065], [-0.02262075, 1.165924]]])
    angle = np.abs(np.angle(np.linalg.eigvals(h)))
    assert 1e-4 < angle.max() < 1e-3  # it turns by the root of the rounding error
    with pytest.raises(GroupError, match="7 digits"):
        _ = MatrixGroup("shear", h).is_compact
    assert MatrixGroup("slow", [turn(4e-4)]).is_compact


def test_generators_that_nearly_close_in_units_far_apart_are_refused():
    """The Borel subalgebra of sl(3) in metres and seconds: in seconds alone, what it mixes is 10^9 times smaller."""
    lie = [
        [[-0.140566702, 4.25491479e-10, 1.33864983e-9], [-5.55348977e9, -0.699567164, -1.15820235],
         [2.46109562e9, 0.408241616, 0.840133865]],
        [[6.37839883, 5.70851123e-10, 4.15689694e-9], [3.17726532e10, 2.94415043, 22.1889957],
         [-1.22652222e10, -1.4086567, -9.32254926]],
        [[-0.983031112, -2.5119576e-10, -9.64025734e-10], [-2.08527433e9, 0.162890331, -0.397771346],
         [3.99513892e8, 0.265175731, 0.82014078]],
        [[-0.299006806, 1.61628452e-10, -3.31673728e-11], [3.54740701e9, 1.68386415, 3.0080556],
         [-1.66334702e9, -0.721214033, -1.38485734]],
    ]  # fmt: skip
    G = MatrixGroup("Borel", lie_algebra=lie)
    with pytest.raises(GroupError, match="in units where their entries are of one size"):
        hom(G, 1, 0, 1)
    natural = MatrixGroup("Borel", lie_algebra=np.array(lie) * G._units[:, None] / G._units)
    assert hom(natural, 1, 0, 1) == 1


# ---- meant as it stands -------------------------------------------------------------------------------------------


def test_a_rotation_by_any_angle_is_meant_where_digits_are_trusted():
    h = [[[0.9553, -0.2955], [0.2955, 0.9553]]]
    with pytest.raises(GroupError, match="4 digits"):
        _ = MatrixGroup("by 0.3", h).is_compact
    with pytest.raises(GroupError):
        equivariant_basis(V(MatrixGroup("by 0.3", h)), V(MatrixGroup("by 0.3", h)))
    G = MatrixGroup("by 0.3", h, trust_digits=True)
    assert (G.is_compact, G.order) == (False, None)  # its determinant is 0.9999
    assert (hom(G, 1, 0, 1), hom(G, 2, 0, 0)) == (2, 0)
    exact = MatrixGroup("by 0.3", [turn(0.3)])
    assert (exact.is_compact, exact.order, hom(exact, 1, 0, 1), hom(exact, 2, 0, 0)) == (True, None, 2, 2)


def test_who_trusts_digits_does_not_answer_for_others():
    h = [[[1.2345, 0.7239], [0.7239, 1.2345]]]  # a boost, or a boost and a dilation by 0.99998
    for _ in range(2):
        assert hom(MatrixGroup("boost", h, trust_digits=True), 2, 0, 0) == 0
        with pytest.raises(SolverError, match="by the digits of the generators"):
            hom(MatrixGroup("boost", h), 2, 0, 0)


@pytest.mark.parametrize(("h", "a", "maps"), [
    ([np.diag([1.37, 1, 1])], [], 5),
    ([np.diag([1.37, 0.8213, 1])], [], 3),
    ([[[0.352, -0.936], [0.936, 0.352]]], [], 2),
    ([], [[[0, 299792458], [3.33564095e-9, 0]]], 2),
    ([], [[[0, -0.7071], [0.7071, 0]]], 2),
])  # fmt: skip
def test_few_digits_that_leave_nothing_open_are_answered(h, a, maps):
    assert hom(MatrixGroup("typed", h, a), 1, 0, 1) == maps


# ---- rounding that looks like a generator -------------------------------------------------------------------------


def test_the_identity_in_a_skew_basis_and_other_units_is_no_shear():
    h = np.array([[1 - 4.3e-15, -4.4e-23], [-3.8e-7, 1 - 3e-14]])
    with pytest.raises(GroupError, match="in suitable units, within .* of the identity"):
        MatrixGroup("identity", [h])
    assert not MatrixGroup("shear", [[[1, 0], [-3.8e-7, 1]]]).is_compact  # the control


def test_a_bracket_that_vanishes_but_for_rounding_is_named():
    lie = [*known("SO+(1,3)").lie, 1e-16 * np.random.default_rng(0).standard_normal((4, 4))]
    with pytest.raises(GroupError, match=r"lie_algebra\[6\] is of norm"):
        MatrixGroup("L", lie_algebra=lie)
    assert hom(MatrixGroup("L", lie_algebra=[*lie[:3], 1e-12 * lie[3], *lie[4:6]]), 1, 0, 1) == 1


def test_a_basis_that_shrinks_the_nilpotent_part_is_not_taken():
    """Two elements of the Borel algebra whose common eigenvector is the only invariant subspace."""
    lie = np.array([[[20.482994, 17.490182], [0, -20.482994]], [[11.632689, 11.288658], [0, -11.632689]]]) * np.pi
    G = MatrixGroup("Borel", lie_algebra=lie)
    assert not irrep_table(G).coordinates.completely_reducible
    assert hom(G, 1, 0, 1) == 1
