"""Every group of emlp through from_emlp: the answers known on paper, emlp's own, and where emlp's are wrong."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from math import factorial, pi

import numpy as np
import pytest
from oracles import hom_of_spins, nullity, run
from tables import CYCLE, FIFTH, NILPOTENT, blocks, skew_basis, so, so13, turn

from emkernel import GroupError, MatrixGroup, SolverError, V, equivariant_basis

PROBLEMS = ((1, 1), (2, 1), (2, 2))


@pytest.fixture(scope="module")
def emlp():
    """The module emlp.groups."""
    return pytest.importorskip("emlp.groups")


def ranks(group, problems=PROBLEMS):
    """dim Hom(V^p, V^q) for each (p, q)."""
    return tuple(len(equivariant_basis((V**p)(group), (V**q)(group))) for p, q in problems)


# ---- all of them ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A group of emlp and what is known of it.

    Attributes:
        make: Python that constructs it, with emlp.groups as e.
        order: number of elements, None when infinite.
        compact: whether a positive invariant form exists.
        hom: dimensions of Hom(V, V), Hom(V², V), Hom(V², V²), real; shorter where V² is large.
        theirs: emlp's ranks where they count something else.
    """

    make: str
    order: int | None
    compact: bool
    hom: tuple[int, ...]
    theirs: tuple[int, ...] | None = None


def finite(make, order, *hom):
    return Row(make, order, True, hom)


def compact(make, *hom, theirs=None):
    return Row(make, None, True, hom, theirs)


def loose(make, *hom):
    return Row(make, None, False, hom)


ROWS = (
    finite("e.Trivial(3)", 1, 9, 27, 81),
    # spins: V² of SO(3) is 0 + 1 + 2, of SO(4) 0 + (1, 0) + (0, 1) + (1, 1), of SO(2) 0 + 0 + 2
    compact("e.SO(2)", 2, 0, 6),
    compact("e.SO(3)", *[hom_of_spins(2, p, q) for p, q in PROBLEMS]),
    compact("e.SO(4)", 1, 0),
    finite("e.O(1)", 2, 1, 0, 1),
    compact("e.O(2)", 1, 0, 3),
    compact("e.O(3)", 1, 0, 3),
    compact("e.O(4)", 1, 0),
    finite("e.C(1)", 1, 4, 8, 16),
    finite("e.C(2)", 2, 4, 0, 16),
    finite("e.C(3)", 3, 2, 2, 6),
    finite("e.C(4)", 4, 2, 0, 8),
    *[finite(f"e.C({k})", k, 2, 0, 6) for k in (5, 7, 8, 12, 360, 1001, 100_000)],
    finite("e.D(1)", 2, 2, 4, 8),
    finite("e.D(2)", 4, 2, 0, 8),
    finite("e.D(3)", 6, 1, 1, 3),
    finite("e.D(4)", 8, 1, 0, 4),
    *[finite(f"e.D({k})", 2 * k, 1, 0, 3) for k in (5, 7, 12, 1001)],
    # e^t on every vector: V^p has degree p
    loose("e.Scaling(1)", 1, 0, 1),
    loose("e.Scaling(2)", 4, 0, 16),
    loose("e.Scaling(3)", 9, 0, 81),
    # half the sum of the powers of the traces 4 and ∓2
    finite("e.Parity()", 2, 10, 28, 136),
    finite("e.TimeReversal()", 2, 10, 36, 136),
    # as for SO(4) and O(4): the same complex group
    loose("e.SO13p()", 1, 0, 4),
    loose("e.SO13()", 1, 0, 4),
    loose("e.O13()", 1, 0, 3),
    loose("e.Lorentz()", 1, 0, 3),
    loose("e.SO11p()", 2, 0, 6),
    loose("e.O11()", 1, 0, 3),
    # V² of Sp(2m) is 1 + Λ²/1 + S², of SL(n) and GL(n) Λ² + S²
    loose("e.Sp(1)", 1, 0, 2),
    loose("e.Sp(2)", 1, 0, 3),
    loose("e.SL(2)", 1, 0, 2),
    loose("e.SL(3)", 1, 0, 2),
    loose("e.GL(1)", 1, 0, 1),
    loose("e.GL(2)", 1, 0, 2),
    loose("e.GL(3)", 1, 0, 2),
    # on n complex numbers, 2n real ones: real maps, ∫ (χ + χ̄)^(p+q); emlp counts complex-linear maps, ∫ |χ|^(p+q)
    compact("e.U(1)", 2, 0, 6, theirs=(1, 0, 1)),
    compact("e.U(2)", 2, 0, 12, theirs=(1, 0, 2)),
    compact("e.U(3)", 2, 0, theirs=(1, 0, 2)),
    compact("e.SU(2)", 4, 0, 32, theirs=(1, 0, 2)),
    compact("e.SU(3)", 2, 2, theirs=(1, 0, 2)),
    # the regular representation: |G|^(p+q-1)
    *[finite(f"e.Z({n})", n, n, n**2, n**3) for n in (1, 2, 3)],
    finite("e.Z(5)", 5, 5, 25),
    finite("e.ZksZnxZn(2,2)", 8, 8),
    finite("e.ZksZnxZn(4,2)", 16, 16),
    finite("e.ZksZnxZn(2,3)", 18, 18),
    # partitions of p + q things into at most n parts
    finite("e.S(2)", 2, 2, 4, 8),
    finite("e.S(3)", 6, 2, 5, 14),
    finite("e.S(4)", 24, 2, 5, 15),
    finite("e.S(5)", 120, 2, 5),
    # rotations on the six faces: traces 6 (once), 2 (three half and six quarter turns), 0 (fourteen)
    finite("e.Cube()", 24, (36 + 9 * 4) // 24, (216 + 9 * 8) // 24),
    # a line that does not move, and the plane
    compact("e.Embed(e.SO(2), 3, slice(0, 2))", 3, 7, 19),
    compact("e.SO2eR3()", 3, 7, 19),
    compact("e.O2eR3()", 2, 4, 10),
    finite("e.DkeR3(3)", 6, 2, 5, 14),
    finite("e.DkeR3(5)", 10, 2, 4, 10),
    # products on V ⊗ W: counts multiply
    compact("e.DirectProduct(e.SO(2), e.S(3))", 2 * 2),
    finite("e.DirectProduct(e.C(3), e.C(5))", 15, 2 * 2, 2 * 0, 6 * 6),
    finite("e.DirectProduct(e.C(3), e.S(3))", 18, 2 * 2),
    compact("e.DirectProduct(e.O(2), e.D(3))", 1 * 1, 0 * 1, 3 * 3),
    compact("e.DirectProduct(e.SO(3), e.C(2))", 1 * 4),
)  # fmt: skip
BY_NAME = {row.make.removeprefix("e."): row for row in ROWS}


def made(emlp, row):
    return eval(row.make, {"e": emlp})


NAMES = [pytest.param(n, marks=pytest.mark.slow) if "Zks" in n else n for n in BY_NAME]


@pytest.mark.parametrize("name", NAMES)
def test_every_group_has_the_answers_known_on_paper(emlp, name):
    row = BY_NAME[name]
    g = MatrixGroup.from_emlp(made(emlp, row))
    assert (g.order, g.is_compact) == (row.order, row.compact)
    assert ranks(g, PROBLEMS[: len(row.hom)]) == row.hom


@pytest.mark.parametrize("name", NAMES)
def test_the_generators_are_those_of_emlp_to_single_precision(emlp, name):
    theirs = made(emlp, BY_NAME[name])
    g = MatrixGroup.from_emlp(theirs)
    for ours, items in ((g.discrete_generators, theirs.discrete_generators), (g.lie_algebra, theirs.lie_algebra)):
        dense = [np.asarray(m @ np.eye(theirs.d)) for m in items]
        assert len(ours) == len(dense)
        for a, b in zip(ours, dense):
            real = np.block([[b.real, -b.imag], [b.imag, b.real]]) if g.d == 2 * theirs.d else b
            np.testing.assert_allclose(a, real, atol=3e-7)


def test_no_group_of_emlp_is_left_out(emlp):
    there = {
        name
        for name, thing in vars(emlp).items()
        if (inspect.isclass(thing) and issubclass(thing, emlp.Group) and thing is not emlp.Group)
        or (inspect.isfunction(thing) and name.endswith("eR3"))
    }
    cannot_be_constructed = {"WreathProduct", "SemiDirectProduct"}
    written = {name for name in there if any(f"e.{name}(" in row.make for row in ROWS)}
    assert there - written == cannot_be_constructed | {"RubiksCube"}


# ---- emlp's own answers -----------------------------------------------------------------------------------------

ASK = """
    import json, logging, os, sys, warnings
    os.environ["JAX_PLATFORMS"] = "cpu"
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    import emlp.groups as e
    from emlp.reps import V
    answers = {}
    for make in json.loads(sys.argv[1]):
        G = eval(make)
        answers[make] = []
        for p, q in ((1, 1), (2, 1), (2, 2)):
            if G.d ** (p + q) > int(sys.argv[2]):
                break
            v = V(G)
            answers[make].append(int((v**p >> v**q).equivariant_basis().shape[-1]))
    print(json.dumps(answers))
"""


def check_answers_of_emlp(rows, unknowns):
    pytest.importorskip("emlp")
    answers = json.loads(run(ASK, json.dumps([row.make for row in rows]), unknowns, timeout=600).splitlines()[-1])
    assert sum(map(len, answers.values())) > len(rows)
    for row in rows:
        known = row.theirs or row.hom
        assert answers[row.make][: len(known)] == list(known)[: len(answers[row.make])], row.make


def test_emlp_agrees_on_its_small_groups():
    check_answers_of_emlp([BY_NAME[name] for name in ("C(3)", "D(5)", "SO11p()", "U(1)")], 8)


@pytest.mark.slow
def test_emlp_agrees_on_all_of_its_groups():
    check_answers_of_emlp(ROWS, 1296)


# ---- where emlp is wrong ----------------------------------------------------------------------------------------


def of_emlp(emlp, name, discrete=(), lie=()):
    """A group as a user of emlp defines it: generators set in __init__, which jax keeps in single precision."""

    def __init__(self):
        self.d = len((list(discrete) or list(lie))[0])
        if len(discrete):
            self.discrete_generators = np.array(discrete)
        if len(lie):
            self.lie_algebra = np.array(lie)
        super(made_up, self).__init__()

    made_up = type(emlp.Group)(name, (emlp.Group,), {"__init__": __init__})
    return made_up()


def spin2():
    """SO(3) on traceless symmetric matrices, in the orthonormal basis xy, xz, yz, x² - y², x² + y² - 2z²."""
    basis = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        m = np.zeros((3, 3))
        m[i, j] = m[j, i] = np.sqrt(0.5)
        basis.append(m)
    basis += [np.diag([1, -1, 0]) / np.sqrt(2), np.diag([1, 1, -2]) / np.sqrt(6)]
    return [[[np.sum(b * (a @ c - c @ a)) for c in basis] for b in basis] for a in so(3)]


def lorentz(c):
    units = np.diag([1 / c, 1.0, 1.0, 1.0])
    return [units @ a @ np.linalg.inv(units) for a in so13()]


def skew(generators, condition):
    s = skew_basis(len(generators[0]), condition)
    return [s @ m @ np.linalg.inv(s) for m in generators]


BOOSTS, ROTATIONS = so13()[:3], so13()[3:]
# name -> discrete generators, Lie algebra, ranks on paper; beside it emlp's answer (emlp 1.0.3) and why it is wrong
WRONG = {
    # (2, 6, 6): sin(2π/10⁶) = 6e-6 and its powers fall under the absolute cut of 1e-5 on singular values
    "turn by a millionth": ([turn(2 * pi / 1_000_000)], [], (2, 0, 6)),
    # (9, 27, 81), everything: all singular values are under the cut
    "rotations times 1e-6": ([], [1e-6 * a for a in so(3)], (1, 1, 3)),
    # (0, 0, 0), nothing: the rounding of single precision, multiplied, is over the cut
    "rotations times 1000": ([], [1e3 * a for a in so(3)], (1, 1, 3)),
    "rotations times 1e6": ([], [1e6 * a for a in so(3)], (1, 1, 3)),
    # (1, 0, 0): the same
    "Lorentz, c = 100": ([], lorentz(100.0), (1, 0, 4)),
    # (0, 0, 0): the same
    "Lorentz, c = 299792458": ([], lorentz(299_792_458.0), (1, 0, 4)),
    # (1, 0, 0); with 1e3 the mean relative error makes the group "orthogonal", and V* is taken for V
    "fast rotations, slow boosts": ([], [*[0.01 * a for a in BOOSTS], *[100 * a for a in ROTATIONS]], (1, 0, 4)),
    "orthogonal on average": ([], [*[1e-3 * a for a in BOOSTS], *[1e3 * a for a in ROTATIONS]], (1, 0, 4)),
    # (4, 8, 16), everything
    "shear by a millionth": ([np.eye(2) + 1e-6 * NILPOTENT], [], (2, 3, 6)),
    # (0, 0): entries of 100 √3 in single precision; V² of spin 2 holds it once
    "spin 2 times 100": ([], 100 * np.array(spin2()), (1, 1)),
    # (2, 0, 3), (1, 0, 0): single precision in skew bases
    "five turns, condition 10": (skew([turn(2 * pi / 5)], 10.0), [], (2, 0, 6)),
    "five turns, condition 50": (skew([turn(2 * pi / 5)], 50.0), [], (2, 0, 6)),
    # (1, 1, 2), (1, 1, 0)
    "rotations, condition 50": ([], skew(so(3), 50.0), (1, 1, 3)),
    "rotations, condition 100": ([], skew(so(3), 100.0), (1, 1, 3)),
}
# digits that single precision has lost: these may be refused, with the reason
LOST = {
    "Lorentz, c = 299792458", "spin 2 times 100", "five turns, condition 50", "rotations, condition 50",
    "rotations, condition 100", "shear by a millionth",
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_groups_on_which_emlp_is_wrong_are_right_from_their_own_generators(name):
    discrete, lie, known = WRONG[name]
    try:
        assert ranks(MatrixGroup(name, discrete, lie), PROBLEMS[: len(known)]) == known
    except SolverError as e:
        # in V ⊗ V what tells a Jordan block of three from one of two is the square of a millionth
        assert name == "shear by a millionth" and "nearly the identity" in str(e), str(e)


@pytest.mark.parametrize("name", WRONG)
def test_groups_on_which_emlp_is_wrong_are_right_or_refused_from_emlp(emlp, name):
    discrete, lie, known = WRONG[name]
    try:
        found = ranks(MatrixGroup.from_emlp(of_emlp(emlp, "Own", discrete, lie)), PROBLEMS[: len(known)])
    except (GroupError, SolverError) as e:
        assert name in LOST, str(e)
        assert "single precision" in str(e) or "few digits" in str(e)
    else:
        assert found == known


def test_groups_of_one_name_are_not_confused(emlp):
    """emlp keeps solutions by class name: whichever comes second gets the basis of the first, here (2, 0, 6)."""
    circle, sphere = of_emlp(emlp, "Mine", lie=so(2)), of_emlp(emlp, "Mine", [np.diag([-1.0, 1.0])], so(2))
    assert circle == sphere and repr(circle) == repr(sphere)
    first, second = MatrixGroup.from_emlp(circle), MatrixGroup.from_emlp(sphere)
    assert first != second
    assert (ranks(first), ranks(second)) == ((2, 0, 6), (1, 0, 3))


def test_embeddings_in_different_places_are_not_confused(emlp):
    """emlp names both SO(2)_R3, and gives the maps that commute with turns about z for turns about x."""
    bases = []
    for where in (slice(0, 2), slice(1, 3)):
        theirs = emlp.Embed(emlp.SO(2), 3, where)
        assert str(theirs) == "SO(2)_R3"
        g = MatrixGroup.from_emlp(theirs)
        basis = equivariant_basis(V(g), V(g))
        a = g.lie_algebra[0]
        assert len(basis) == 3 and np.abs(a @ basis - basis @ a).max() < 1e-12
        bases.append(basis)
    assert np.abs(bases[0] - bases[1]).max() > 0.1


def test_turns_whose_angle_single_precision_has_lost_are_refused(emlp):
    """355/113: a turn by one radian is nearly of order 710, and to single precision either may be meant."""
    for angle in (1.0, 2.0, np.sqrt(2.0), 7 * 2 * pi / 50_000):
        with pytest.raises(GroupError, match="single precision, turns by .* double precision"):
            MatrixGroup.from_emlp(of_emlp(emlp, "Own", [turn(angle)]))


def test_finite_groups_with_irrational_generators_are_recovered(emlp):
    """Each as the exact group near it: (order, maps)."""
    icosahedral = of_emlp(emlp, "I", [CYCLE, FIFTH])
    # C5 x C301 has too many elements to list: each turn by itself
    torus = of_emlp(emlp, "T", [blocks(turn(2 * pi / 5), np.eye(2)), blocks(np.eye(2), turn(2 * pi / 301))])
    for theirs, order, hom in ((icosahedral, 60, (1, 1, 3)), (torus, 1505, (4, 0, 36))):
        g = MatrixGroup.from_emlp(theirs)
        assert (g.order, g.is_compact, ranks(g)) == (order, True, hom)


def test_generators_that_a_class_keeps_in_double_precision_are_taken_from_there(emlp):
    """An instance has them rounded by jax; a turn by one radian is lost there, and is not in its class."""
    theirs = type(emlp.Group)("Own", (emlp.Group,), {"discrete_generators": turn(1.0)[None]})()
    assert np.asarray(theirs.discrete_generators).dtype == np.float32
    g = MatrixGroup.from_emlp(theirs)
    np.testing.assert_array_equal(g.discrete_generators[0], turn(1.0))
    theirs = type(emlp.Group)("Own", (emlp.Group,), {"lie_algebra": np.array(skew(so(3), 50.0))})()
    assert ranks(MatrixGroup.from_emlp(theirs)) == (1, 1, 3)


@pytest.mark.parametrize("h", [np.eye(2) + NILPOTENT, np.diag([2.0, 1.0]), [[0.6, -0.8], [0.8, 0.6]]])
def test_generators_of_infinite_order_that_are_exact_stay_as_they_are(emlp, h):
    g = MatrixGroup.from_emlp(of_emlp(emlp, "Own", [h]))
    assert g.order is None
    np.testing.assert_allclose(g.discrete_generators[0], h, atol=1e-15)
    assert ranks(g) == tuple(nullity(MatrixGroup("double", [h]), p, q) for p, q in PROBLEMS)


CRASHES: dict[str, tuple[type, Callable[[], MatrixGroup], int, tuple[int, ...]]] = {
    # no generators and no dimension: the size of V is never set
    "e.SO(1)": (TypeError, lambda: MatrixGroup("SO(1)", d=1), 1, (1, 1, 1)),
    "e.SL(1)": (TypeError, lambda: MatrixGroup("SL(1)", d=1), 1, (1, 1, 1)),
    "e.S(1)": (TypeError, lambda: MatrixGroup("S(1)", d=1), 1, (1, 1, 1)),
    # __init__ returns another group; on one complex number, two real ones
    "e.SU(1)": (TypeError, lambda: MatrixGroup("SU(1)", d=2), 1, (4, 8, 16)),
    # a list of lazy permutations has no shape; V is a sum of two lines and the plane of S3
    "e.Embed(e.S(3), 4, slice(0, 3))": (
        AttributeError,
        lambda: MatrixGroup("S3 in R^4", [blocks(m, np.eye(1)) for m in (np.eye(3)[[1, 0, 2]], CYCLE)]),
        6, (5, 15, 51),
    ),
    # S2 wr S2, the symmetries of a square, on its four corners: traces 4, 2 (twice), 0
    "e.WreathProduct(e.S(2), e.S(2))": (
        NotImplementedError,
        lambda: MatrixGroup("S2 wr S2", [np.eye(4)[[1, 0, 2, 3]], np.eye(4)[[2, 3, 0, 1]]]),
        8, ((16 + 2 * 4) // 8, (64 + 2 * 8) // 8, (256 + 2 * 16) // 8),
    ),
    # C3 by the inversion, on three points: S3
    "e.SemiDirectProduct(e.Z(3), e.Z(2), None)": (
        NotImplementedError,
        lambda: MatrixGroup("C3 : C2", [CYCLE, np.eye(3)[[0, 2, 1]]]),
        6, (2, 5, 14),
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", CRASHES)
def test_groups_that_emlp_cannot_construct(emlp, make):
    error, ours, order, hom = CRASHES[make]
    with pytest.raises(error):
        eval(make, {"e": emlp})
    assert (ours().order, ours().is_compact, ranks(ours())) == (order, True, hom)


@pytest.mark.slow
def test_six_points(emlp):
    """emlp: 1296, all of them not-a-number; its singular value decomposition in single precision does not converge,
    and no singular value is over the cut. On paper: the 15 partitions of four things."""
    assert ranks(MatrixGroup.from_emlp(emlp.S(6))) == (2, 5, 15)


@pytest.mark.slow
def test_regular_representation_beyond_the_dense_solver_of_emlp(emlp):
    """emlp: beyond 3e7 entries its iteration raises TypeError (tqdm is given a float32 for a number of seconds)."""
    assert ranks(MatrixGroup.from_emlp(emlp.ZksZnxZn(2, 2))) == (8, 64, 512)


@pytest.mark.slow
def test_the_cube_of_emlp_is_not_rubiks(emlp):
    """Turning the whole cube, emlp does not turn the stickers of the faces on the axis: quarter turns of its faces move
    every edge and corner sticker to any other, S24 x S24 up to one common sign, (24!)²/2 and not 4.3e19 elements. V is
    two points of permutation, 1 + 23 each: 4 + 1 + 1 maps. emlp cannot solve V -> V: TypeError, as above."""
    g = MatrixGroup.from_emlp(emlp.RubiksCube())
    assert g.order == factorial(24) ** 2 // 2
    assert ranks(g, [(1, 1)]) == (6,)
