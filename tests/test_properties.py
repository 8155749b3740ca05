"""The same group written differently has the same answers, or is refused with the reason; never silently others."""

from __future__ import annotations

import re
from collections import Counter
from math import gcd, pi

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rewriting import (
    HARMLESS,
    KNOWN,
    PROBLEMS,
    REWRITINGS,
    append_element,
    binary_units,
    expected,
    known,
    last_digit,
    orthogonal,
    physical_units,
    rescale,
    rewritten,
    rounded,
    skewed,
)
from tables import turn

from emkernel import GroupError, MatrixGroup, SolverError, T, V, equivariant_basis
from emkernel.solver.irreps import irrep_table

ADVICE = re.compile(
    "[Ww]rite|[Tt]ake |[Pp]ass |[Gg]ive|[Uu]se |[Ll]ikely cause|[Pp]robably|wrong list|polished|[Cc]heck|precision"
)
MILLIONTH = "dilation by a millionth"  # V ⊗ V has eigenvalues 1, 1e-6, 1e-12: no gap in double precision
EVERYDAY = settings(
    derandomize=True, deadline=None, database=None, max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
SLOW = settings(EVERYDAY, max_examples=600)
SEEDS = st.integers(0, 2**32 - 1)


# ---- the judge --------------------------------------------------------------------------------------------------


def refused(error):
    """A refusal counts as an answer if it says what was found, with a number, and what to do."""
    message = str(error)
    assert re.search(r"\d", message) and ADVICE.search(message), f"an error that does not help: {message}"


def pieces(group):
    """{(dimension, type, multiplicity): classes} in V ⊗ V; None where splitting is not certified."""
    parts = irrep_table(group).decompose((V**2)(group)).parts
    if any(r.type is None for r, _, _ in parts):
        return None
    return Counter((r.size, r.type, len(to)) for r, to, _ in parts)


def hom(group, p, q, r):
    """dim Hom(V^p ⊗ V*^q, V^r)."""
    return len(equivariant_basis(T(p, q)(group), (V**r)(group)))


def judge(name, h, a, problems=PROBLEMS):
    """How many answers about this group were refused; an answer that is not the known one fails."""
    base, refusals = known(name), 0
    try:
        group = MatrixGroup(name, h, a, d=base.d)
    except GroupError as e:
        refused(e)
        return 1
    questions = {"is_compact": (lambda: group.is_compact, base.compact), "order": (lambda: group.order, base.order)}
    for p in problems:
        questions[f"Hom{p}"] = (lambda p=p: hom(group, *p), expected(name, p))
    if base.pieces is not None:
        questions["V ⊗ V"] = (lambda: pieces(group), base.pieces)
    for what, (ask, answer) in questions.items():
        try:
            found = ask()
        except (GroupError, SolverError) as e:
            refused(e)
            refusals += 1
            continue
        if found is None and what == "V ⊗ V":
            refusals += 1
        else:
            assert found == answer, f"{what} of {name} is {answer}, found {found}"
    return refusals


# ---- the known answers, and controls that must go red -----------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in KNOWN if known(n).pieces is not None])
def test_pieces_on_paper_fill_the_tensor_square_and_count_its_endomorphisms(name):
    base = known(name)
    of_type = {"real": 1, "complex": 2, "quaternionic": 4}
    assert sum(d * m * many for (d, _, m), many in base.pieces.items()) == base.d**2
    assert sum(of_type[t] * m * m * many for (_, t, m), many in base.pieces.items()) == base.hom(2, 0, 2)


@pytest.mark.parametrize(("claimed", "given_as"), [
    ("SO(3)", "O(3)"), ("C4", "D4"), ("C360", "SO(2)"), ("T", "Oh"), ("Borel", "shear"), ("SL(2)", "GL(2)"),
    ("SE(2)", "SO(2) about z"),
])  # fmt: skip
def test_negative_control_another_group_is_seen(claimed, given_as):
    with pytest.raises(AssertionError, match="found"):
        judge(claimed, known(given_as).discrete, known(given_as).lie)


@pytest.mark.parametrize("message", ["no", "no gap between 1e-3 and 1e-7", "Write it in full precision"])
def test_negative_control_an_error_that_does_not_help_is_seen(message):
    with pytest.raises(AssertionError, match="does not help"):
        refused(SolverError(message))


# ---- never refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in KNOWN if n != MILLIONTH])
def test_every_group_as_written_on_paper(name):
    assert judge(name, known(name).discrete, known(name).lie) == 0


@pytest.mark.parametrize("step", HARMLESS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("name", [n for n in KNOWN if n != MILLIONTH])
def test_orthogonal_bases_and_exact_units_and_scales_are_never_refused(name, step):
    h, a = rewritten(name, [step], seed=len(name))
    assert judge(name, h, a, PROBLEMS[1:5:3]) == 0


# ---- right, or refused ------------------------------------------------------------------------------------------


def problems(seed, many):
    return [PROBLEMS[i] for i in np.random.default_rng(seed).choice(len(PROBLEMS), many, replace=False)]


NAMES = st.sampled_from(sorted(KNOWN))
STEPS = st.lists(st.sampled_from(REWRITINGS), max_size=4)
EXPONENTS = st.one_of(st.just(0.0), st.floats(0, 4))


def check_rewriting(name, steps, exponent, seed):
    h, a = rewritten(name, steps, 10**exponent, seed)
    judge(name, h, a, problems(seed, 2))


@given(NAMES, STEPS, EXPONENTS, SEEDS)
# units that make the blocks of the constraint differ by sixteen orders of magnitude
@example("Galilei", [physical_units], 0.0, 300599407)
@example("SO+(1,1)", [physical_units], 0.0, 770784896)
@example("SO(4)", [physical_units], 0.385, 594225611)
# what is known of a group that no basis makes orthogonal is nothing, not "it is not compact"
@example("SO(3)", [last_digit], 3.826, 726015646)
@example("S4", [], 3.5, 1796906667)
# the order of a rotation by a small angle, carried into a skew basis
@example("C1000000", [], 2.1, 1519126461)
@example("C10007", [], 3.96, 1273161295)
# a unipotent matrix in these units is the identity to a few digits, and not compact
@example("shear by one", [binary_units, rescale, append_element], 1.9492724, 420917547)
@EVERYDAY
def test_rewritten_groups_have_the_same_answers(name, steps, exponent, seed):
    check_rewriting(name, steps, exponent, seed)


@pytest.mark.slow
@given(NAMES, STEPS, EXPONENTS, SEEDS)
@SLOW
def test_many_rewritten_groups_have_the_same_answers(name, steps, exponent, seed):
    check_rewriting(name, steps, exponent, seed)


# ---- few digits -------------------------------------------------------------------------------------------------


def check_digits(name, steps, digits, exponent, seed):
    h, a = rounded(*rewritten(name, steps, 10**exponent, seed), digits)
    judge(name, h, a, problems(seed, 2))


DIGITS = st.integers(3, 14)


@given(NAMES, STEPS, DIGITS, st.floats(0, 3), SEEDS)
# a nilpotent matrix, rounded, turns by the root of the rounding error
@example("shear", [], 9, 1.7415442, 69240059)
# brackets of rounded generators span all of sl(3) at the size of the rounding errors
@example("SE(2)", [orthogonal], 7, 0.0, 0)
@settings(EVERYDAY, max_examples=30)
def test_generators_with_few_digits_are_right_or_refused(name, steps, digits, exponent, seed):
    check_digits(name, steps, digits, exponent, seed)


@pytest.mark.slow
@given(NAMES, STEPS, DIGITS, st.floats(0, 3), SEEDS)
@SLOW
def test_many_generators_with_few_digits_are_right_or_refused(name, steps, digits, exponent, seed):
    check_digits(name, steps, digits, exponent, seed)


# ---- nearly the identity ----------------------------------------------------------------------------------------


@given(st.integers(7, 1_000_000), st.integers(1, 40))
@example(1_000_000, 1)
@example(999_983, 1)
@settings(EVERYDAY, max_examples=25)
def test_cyclic_groups_of_any_order_have_the_maps_of_the_circle(n, k):
    """C_n in the plane has the maps of SO(2) between powers p and q with p + q < n."""
    k = k // gcd(k, n) if gcd(k // gcd(k, n), n) == 1 else 1
    group = MatrixGroup(f"C{n}", [turn(2 * pi * k / n)])
    assert group.order == n
    assert group.is_compact
    assert [hom(group, 1, 0, 1), hom(group, 2, 0, 1), hom(group, 2, 0, 2)] == [2, 0, 6]


@given(st.integers(7, 3000), st.sampled_from([0.0, 1.0, 2.0]), SEEDS)
@settings(EVERYDAY, max_examples=20)
def test_dihedral_groups_of_any_order_in_skew_bases(n, exponent, seed):
    s = skewed(np.random.default_rng(seed), 2, 10**exponent)
    back = np.linalg.inv(s)
    group = MatrixGroup(f"D{n}", [s @ turn(2 * pi / n) @ back, s @ np.diag([1.0, -1.0]) @ back])
    assert group.order == 2 * n
    assert [hom(group, 1, 0, 1), hom(group, 2, 0, 1), hom(group, 2, 0, 2)] == [1, 0, 3]


# ---- two ways of writing at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Oh", "SO(3)", "O(2) x D3", "SU(2)", "T", "S4"])
def test_two_generating_sets_in_two_bases_have_irreducibles_of_equal_characters(name):
    """The traces of V ⊗ V's pieces, on elements that are carried from one basis to the other, agree class by class."""
    base = known(name)
    s = skewed(np.random.default_rng(3), base.d, 30.0)
    back = np.linalg.inv(s)
    plain = MatrixGroup("plain", base.discrete, base.lie, d=base.d)
    other = MatrixGroup("other", s @ base.discrete @ back, s @ base.lie @ back, d=base.d)
    g = plain.sample(6, 1)

    def characters(group):
        parts = irrep_table(group).decompose((V**2)(group)).parts
        elements = type(g)(group, g.coefs, g.index, g.power)
        traces = [np.trace(r.rho(elements), axis1=1, axis2=2).round(6).tolist() for r, _, _ in parts]
        return sorted((r.size, len(to), t) for (r, to, _), t in zip(parts, traces))

    for (d, m, x), (e, n, y) in zip(characters(plain), characters(other)):
        assert (d, m) == (e, n)
        np.testing.assert_allclose(x, y, atol=1e-5)
