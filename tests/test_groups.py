"""Laws of the catalogue, over one table of its groups."""

import re
from collections import Counter
from dataclasses import dataclass
from math import factorial

import numpy as np
import pytest

from emkernel import V, cli, equivariant_basis, groups
from emkernel.errors import GroupError
from emkernel.matrix_group import MatrixGroup

# ---- defining forms: g -> a residual that vanishes exactly on the group's elements, up to finiteness ----------


def keeps(metric):
    return lambda g: g.T @ metric @ g - metric


def commutes_with(j):
    return lambda g: g @ j - j @ g


def all_of(*forms):
    return lambda g: np.concatenate([np.ravel(f(g)) for f in forms])


def identity(g):
    return g - np.eye(len(g))


def orthogonal(g):
    return g.T @ g - np.eye(len(g))


def proper(g):
    return np.linalg.det(g) - 1


def z_fixed(g):
    return g[:, 2] - [0, 0, 1]


def z_by_determinant(g):
    return g[:, 2] - [0, 0, np.linalg.det(g)]


def z_by_plane_determinant(g):
    return g[:, 2] - [0, 0, np.linalg.det(g[:2, :2])]


def z_up_to_sign(g):
    return [g[0, 2], g[1, 2], g[2, 2] ** 2 - 1]


def permutes(g):
    return np.concatenate([np.ravel(g * (g - 1)), g.sum(0) - 1, g.sum(1) - 1])


def blocks(d):
    zero, one = np.zeros((d // 2, d // 2)), np.eye(d // 2)
    return np.block([[zero, one], [-one, zero]])


def complex_determinant_one(g):
    n = len(g) // 2
    return abs(np.linalg.det(g[:n, :n] + 1j * g[n:, :n]) - 1)


def affine(form):
    """Homogeneous coordinates: the form for the linear part, and a last row (0, ..., 0, 1)."""
    return lambda g: np.concatenate([np.ravel(form(g[:-1, :-1])), g[-1] - np.eye(len(g))[-1]])


def galilean(g):
    return np.concatenate([g[-1] - np.eye(len(g))[-1], g[-2, :-1] - np.eye(len(g))[-2, :-1], ROTATION(g[:-2, :-2])])


def conformal(g):
    return g.T @ g - np.cbrt(np.linalg.det(g) ** 2) * np.eye(len(g))


def multiple_of_one(g):
    return g - g[0, 0] * np.eye(len(g))


def triangular(g):
    return np.tril(g, -1)


def unipotent(g):
    return np.tril(g) - np.eye(len(g))


def anything(g):
    return np.zeros(1)


def signed(g):
    return permutes(g * g)


ROTATION = all_of(orthogonal, proper)
ON_Z = all_of(orthogonal, z_fixed)
PROPER_ON_Z = all_of(ROTATION, z_fixed)
WITH_INVERSION = all_of(orthogonal, z_by_determinant)
WITH_FLIP = all_of(ROTATION, z_by_plane_determinant)
CYLINDER = all_of(orthogonal, z_up_to_sign)
MINKOWSKI = np.diag([1.0, -1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Row:
    form: object  # residual of the defining relations
    order: int | None  # None when infinite
    lie: int = 0  # dimension of the Lie algebra
    determinants: tuple = (1,)  # of the elements; their signs where volumes change
    compact: bool = True
    rescales: bool = False  # determinants of any size
    hom: tuple = ()  # dimensions of Hom(V, V), Hom(V², V), Hom(V², V²), as far as known on paper


BOTH = (-1, 1)
TABLE = {
    "Trivial2": Row(identity, 1), "Trivial3": Row(identity, 1),
    **{f"C{n}": Row(ROTATION, n) for n in (2, 3, 4, 6, 8)},
    **{f"D{n}": Row(orthogonal, 2 * n, 0, BOTH) for n in (1, 3, 4, 6)},
    "SO2": Row(ROTATION, None, 1), "O2": Row(orthogonal, None, 1, BOTH),
    **{f"C{n}z": Row(PROPER_ON_Z, n) for n in (2, 3, 4, 6)},
    **{f"C{n}v": Row(ON_Z, 2 * n, 0, BOTH) for n in (2, 3, 4, 6)},
    "Cs": Row(WITH_INVERSION, 2, 0, BOTH),
    **{f"C{n}h": Row(WITH_INVERSION, 2 * n, 0, BOTH) for n in (2, 3, 4, 6)},
    "S4z": Row(WITH_INVERSION, 4, 0, BOTH), "S6z": Row(WITH_INVERSION, 6, 0, BOTH),
    **{f"D{n}z": Row(WITH_FLIP, 2 * n) for n in (2, 3, 4, 6)},
    **{f"D{n}h": Row(CYLINDER, 4 * n, 0, BOTH) for n in (2, 3, 4, 6)},
    "D2d": Row(CYLINDER, 8, 0, BOTH), "D3d": Row(CYLINDER, 12, 0, BOTH),
    "M": Row(ON_Z, 2, 0, BOTH), "Inv": Row(WITH_INVERSION, 2, 0, BOTH), "F": Row(WITH_FLIP, 2),
    "SO2z": Row(PROPER_ON_Z, None, 1), "O2z": Row(ON_Z, None, 1, BOTH),
    "SO2zInv": Row(WITH_INVERSION, None, 1, BOTH), "SO2zF": Row(WITH_FLIP, None, 1),
    "O2zInv": Row(CYLINDER, None, 1, BOTH),
    "SO3": Row(ROTATION, None, 3), "O3": Row(orthogonal, None, 3, BOTH), "SO4": Row(ROTATION, None, 6),
    "T": Row(ROTATION, 12), "Td": Row(orthogonal, 24, 0, BOTH), "Th": Row(orthogonal, 24, 0, BOTH),
    "Octa": Row(ROTATION, 24), "Oh": Row(orthogonal, 48, 0, BOTH),
    "Ico": Row(ROTATION, 60), "Ih": Row(orthogonal, 120, 0, BOTH),
    **{f"S{n}": Row(permutes, factorial(n), 0, BOTH) for n in (3, 4, 5)},
    "O11": Row(keeps(np.diag([1.0, -1.0])), None, 1, BOTH, compact=False),
    "SOplus13": Row(all_of(keeps(MINKOWSKI), proper), None, 6, compact=False),
    "SO13": Row(all_of(keeps(MINKOWSKI), proper), None, 6, compact=False),
    "Lorentz": Row(keeps(MINKOWSKI), None, 6, BOTH, compact=False),
    "U2": Row(all_of(orthogonal, commutes_with(blocks(4))), None, 4),
    "SU2": Row(all_of(orthogonal, commutes_with(blocks(4)), complex_determinant_one), None, 3),
    "SU3": Row(all_of(orthogonal, commutes_with(blocks(6)), complex_determinant_one), None, 8),
    "Sp2": Row(keeps(blocks(2)), None, 3, compact=False), "Sp4": Row(keeps(blocks(4)), None, 10, compact=False),
    "A4": Row(all_of(permutes, proper), 12, hom=(2, 6, 22)), "B3": Row(signed, 48, 0, BOTH, hom=(1, 0, 4)),
    # corner stickers meet themselves, two of their piece, others; edge stickers themselves, one, others; each other
    "Rubik": Row(permutes, 43252003274489856000, 0, BOTH, hom=(9,)),
    "GL2": Row(anything, None, 4, BOTH, False, True, (1, 0, 2)),
    "GL3": Row(anything, None, 9, BOTH, False, True, (1, 0, 2)),
    "SL2": Row(proper, None, 3, compact=False, hom=(1, 0, 2)),
    "SL3": Row(proper, None, 8, compact=False, hom=(1, 0, 2)),
    "GLC1": Row(commutes_with(blocks(2)), None, 2, (1,), False, True, (2, 0, 6)),
    "SLC2": Row(all_of(commutes_with(blocks(4)), complex_determinant_one), None, 6, compact=False, hom=(2, 0)),
    "Scale3": Row(multiple_of_one, None, 1, (1,), False, True, (9, 0, 81)),
    "CSO3": Row(conformal, None, 4, (1,), False, True, (1, 0, 3)),
    "CO3": Row(conformal, None, 4, BOTH, False, True, (1, 0, 3)),
    "SE2": Row(affine(ROTATION), None, 3, compact=False, hom=(1, 3, 4)),
    "E2": Row(affine(orthogonal), None, 3, BOTH, False, hom=(1,)),
    "SE3": Row(affine(ROTATION), None, 6, compact=False, hom=(1,)),
    "E3": Row(affine(orthogonal), None, 6, BOTH, False, hom=(1,)),
    "Aff2": Row(affine(anything), None, 6, BOTH, False, True, (1,)),
    "Galilei1": Row(all_of(galilean, unipotent), None, 3, compact=False, hom=(2,)),
    "Galilei3": Row(galilean, None, 10, compact=False, hom=(1,)),
    "Poincare1": Row(affine(keeps(np.diag([1.0, -1.0]))), None, 3, BOTH, False, hom=(1,)),
    "Poincare3": Row(affine(keeps(MINKOWSKI)), None, 10, BOTH, False, hom=(1,)),
    "Heisenberg1": Row(unipotent, None, 3, compact=False, hom=(2,)),
    "Shear": Row(unipotent, None, 1, compact=False, hom=(2, 3, 6)),
    "Borel2": Row(triangular, None, 3, (1,), False, True, (1, 0, 2)),
    "Borel3": Row(triangular, None, 6, (1,), False, True, (1, 0)),
}  # fmt: skip

# The 32 classes of crystals and the 7 limits: Hermann-Mauguin and Schoenflies symbols, name here.
POINT_GROUPS = {
    "1": ("C1", "Trivial3"), "-1": ("Ci", "Inv"), "2": ("C2", "C2z"), "m": ("Cs", "Cs"), "2/m": ("C2h", "C2h"),
    "222": ("D2", "D2z"), "mm2": ("C2v", "C2v"), "mmm": ("D2h", "D2h"),
    "4": ("C4", "C4z"), "-4": ("S4", "S4z"), "4/m": ("C4h", "C4h"), "422": ("D4", "D4z"), "4mm": ("C4v", "C4v"),
    "-42m": ("D2d", "D2d"), "4/mmm": ("D4h", "D4h"),
    "3": ("C3", "C3z"), "-3": ("C3i", "S6z"), "32": ("D3", "D3z"), "3m": ("C3v", "C3v"), "-3m": ("D3d", "D3d"),
    "6": ("C6", "C6z"), "-6": ("C3h", "C3h"), "6/m": ("C6h", "C6h"), "622": ("D6", "D6z"), "6mm": ("C6v", "C6v"),
    "-6m2": ("D3h", "D3h"), "6/mmm": ("D6h", "D6h"),
    "23": ("T", "T"), "m-3": ("Th", "Th"), "432": ("O", "Octa"), "-43m": ("Td", "Td"), "m-3m": ("Oh", "Oh"),
    "∞": ("C∞", "SO2z"), "∞m": ("C∞v", "O2z"), "∞/m": ("C∞h", "SO2zInv"), "∞2": ("D∞", "SO2zF"),
    "∞/mm": ("D∞h", "O2zInv"), "∞∞": ("K", "SO3"), "∞∞m": ("Kh", "O3"),
}  # fmt: skip
CRYSTALS = {hm: name for hm, (_, name) in POINT_GROUPS.items() if "∞" not in hm}

every_group = pytest.mark.parametrize("name", TABLE)


def group(name):
    return groups.catalogue()[name]()


def residual(form, matrices):
    """The largest violation of the form, relative to |g|²."""
    return max((np.abs(form(g)).max() / max(1, np.linalg.norm(g, 2) ** 2) for g in matrices), default=0.0)


def one_step(g):
    """Discrete generators, and exp of the Lie algebra generators by their series."""
    series = []
    for a in g.lie_algebra:
        term = total = np.eye(g.d)
        for k in range(1, 40):
            term = term @ a / k
            total = total + term
        series.append(total)
    return [*g.discrete_generators, *series]


def closure(generators, limit=200):
    """All products of the generators, by brute force."""
    found = [np.eye(generators.shape[-1])]
    for g in found:
        for h in generators:
            product = g @ h
            if min(np.abs(product - f).max() for f in found) > 1e-9:
                found.append(product)
                assert len(found) <= limit, "the generators do not close"
    return found


def kinds(generators):
    """How many elements have which (determinant, trace)."""
    return Counter((round(np.linalg.det(g)), round(np.trace(g), 6) + 0.0) for g in closure(generators))


# ---- laws -----------------------------------------------------------------------------------------------------


def test_table_is_the_catalogue():
    assert set(TABLE) == set(groups.catalogue())


@every_group
def test_order_and_compactness(name):
    g, row = group(name), TABLE[name]
    assert g.order == row.order
    assert g.is_finite == (row.order is not None)
    assert g.is_compact == row.compact


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.order and row.order < 200])
def test_order_by_brute_force(name):
    assert len(closure(group(name).discrete_generators)) == TABLE[name].order


@every_group
def test_generators_keep_the_form(name):
    assert residual(TABLE[name].form, one_step(group(name))) < 1e-14


@every_group
def test_samples_keep_the_form(name):
    assert residual(TABLE[name].form, group(name).sample(30, 0).matrix) < 1e-10


@every_group
def test_determinants(name):
    determinants = np.linalg.det(group(name).sample(200, 0).matrix)
    if TABLE[name].rescales:
        assert np.abs(np.abs(determinants) - 1).max() > 1e-2
        determinants = np.sign(determinants)
    assert np.abs(np.abs(determinants) - 1).max() < 1e-9
    assert set(np.round(determinants)) == set(TABLE[name].determinants)


@every_group
def test_lie_algebra_dimension_and_closure(name):
    lie = group(name).lie_algebra
    flat = lie.reshape(len(lie), lie[0].size if len(lie) else 0)
    assert len(lie) == TABLE[name].lie
    assert len(lie) == 0 or np.linalg.matrix_rank(flat) == len(lie)
    brackets = [np.ravel(a @ b - b @ a) for a in lie for b in lie]
    assert not brackets or np.linalg.matrix_rank(np.vstack([flat, brackets])) == len(lie)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.order != 1 and not row.rescales])
def test_a_wrong_generator_breaks_the_form(name):
    g = group(name)
    broken = [1.1 * h for h in g.discrete_generators], [a + 0.1 * np.eye(g.d) for a in g.lie_algebra]
    wrong = MatrixGroup("wrong", *broken, d=g.d, trust_digits=True)
    assert all(residual(TABLE[name].form, [h]) > 1e-2 for h in one_step(wrong))
    assert residual(TABLE[name].form, wrong.sample(30, 0).matrix) > 1e-2


@pytest.mark.parametrize(("name", "wrong"), [
    ("GLC1", [[0, 1], [1, 0]]), ("Scale3", np.diag([1, 0, 0])), ("CSO3", np.eye(3, k=1)), ("CO3", np.diag([1, 0, 0])),
    ("Aff2", np.diag([0, 0, 1])), ("Borel2", np.eye(2, k=-1)), ("Borel3", np.eye(3, k=-1)),
])  # fmt: skip
def test_a_wrong_direction_breaks_the_form(name, wrong):
    g = group(name)
    larger = MatrixGroup("wrong", g.discrete_generators, [*g.lie_algebra, wrong])
    assert residual(TABLE[name].form, larger.sample(30, 0).matrix) > 1e-3


@pytest.mark.parametrize(("name", "problem"), [(n, k) for n, row in TABLE.items() for k in range(len(row.hom))])
def test_equivariant_maps_are_as_many_as_on_paper(name, problem):
    g = group(name)
    rep_in, rep_out = [(V, V), (V**2, V), (V**2, V**2)][problem]
    assert len(equivariant_basis(rep_in(g), rep_out(g))) == TABLE[name].hom[problem]


def test_a_wrong_generator_changes_the_order():
    turn, quarter = group("Octa").discrete_generators
    assert MatrixGroup("T, meant as O", [turn, quarter @ quarter]).order == 12


@pytest.mark.parametrize(("family", "order"), [
    (groups.C, lambda n: n), (groups.D, lambda n: 2 * n), (groups.Cz, lambda n: n), (groups.Cnv, lambda n: 2 * n),
    (groups.Cnh, lambda n: 2 * n), (groups.S2n, lambda n: 2 * n), (groups.Dz, lambda n: 2 * n),
    (groups.Dnh, lambda n: 4 * n), (groups.Dnd, lambda n: 4 * n), (groups.S, factorial),
    (groups.A, lambda n: max(1, factorial(n) // 2)), (groups.B, lambda n: 2**n * factorial(n)),
])  # fmt: skip
def test_families_have_the_order_of_their_formula(family, order):
    assert [family(n).order for n in (1, 2, 3, 5, 7, 8)] == [order(n) for n in (1, 2, 3, 5, 7, 8)]


@pytest.mark.parametrize(("family", "dimension"), [
    (groups.SO, lambda n: n * (n - 1) // 2), (groups.O, lambda n: n * (n - 1) // 2),
    (groups.U, lambda n: n**2), (lambda n: groups.SU(n + 1), lambda n: n * (n + 2)),
    (lambda n: groups.Sp(2 * n), lambda n: n * (2 * n + 1)),
    (lambda n: groups.Opq(n, 2), lambda n: (n + 2) * (n + 1) // 2),
    (lambda n: groups.SOpqFull(n, 2), lambda n: (n + 2) * (n + 1) // 2),
    (groups.GL, lambda n: n**2), (lambda n: groups.SL(n + 1), lambda n: n * (n + 2)),
    (groups.GLC, lambda n: 2 * n**2), (lambda n: groups.SLC(n + 1), lambda n: 2 * n * (n + 2)),
    (groups.Scale, lambda n: 1), (groups.CSO, lambda n: 1 + n * (n - 1) // 2),
    (groups.CO, lambda n: 1 + n * (n - 1) // 2),
    (groups.Borel, lambda n: n * (n + 1) // 2), (groups.Unipotent, lambda n: n * (n - 1) // 2),
    (groups.Heisenberg, lambda n: 2 * n + 1), (groups.SE, lambda n: n * (n + 1) // 2),
    (groups.E, lambda n: n * (n + 1) // 2), (groups.Aff, lambda n: n * (n + 1)),
    (groups.Galilei, lambda n: (n + 1) * (n + 2) // 2), (groups.Poincare, lambda n: (n + 1) * (n + 2) // 2),
])  # fmt: skip
def test_families_have_the_dimension_of_their_formula(family, dimension):
    assert [len(family(n).lie_algebra) for n in (1, 2, 3, 4)] == [dimension(n) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(("p", "q"), [(1, 0), (0, 2), (1, 1), (2, 1), (1, 3), (3, 2)])
def test_pseudo_orthogonal_groups_keep_their_metric(p, q):
    metric = np.diag([1.0] * p + [-1.0] * q)
    for g in (groups.Opq(p, q), groups.SOpq(p, q)):
        assert g.d == p + q
        assert residual(keeps(metric), [*one_step(g), *g.sample(20, 0).matrix]) < 1e-10
    assert residual(proper, groups.SOpq(p, q).sample(20, 0).matrix) < 1e-10


def test_lorentz_is_the_general_definition():
    np.testing.assert_array_equal(group("Lorentz").lie_algebra, groups.Opq(1, 3).lie_algebra)
    assert group("O11") == groups.Opq(1, 1)
    assert group("SOplus13") == groups.SOpq(1, 3)


def test_connected_lorentz_group_keeps_the_arrow_of_time():
    assert group("SOplus13").sample(100, 0).matrix[:, 0, 0].min() >= 1
    assert group("SO13").sample(100, 0).matrix[:, 0, 0].min() < 0


def test_polyhedral_groups_have_the_right_classes():
    phi = round((1 + 5**0.5) / 2, 6)
    t = {(1, 3): 1, (1, 0): 8, (1, -1): 3}
    assert kinds(group("T").discrete_generators) == t
    assert kinds(group("Octa").discrete_generators) == {**t, (1, -1): 9, (1, 1): 6}
    assert kinds(group("Td").discrete_generators) == {**t, (-1, 1): 6, (-1, -1): 6}
    assert kinds(group("Th").discrete_generators) == {**t, **{(-1, -trace): n for (_, trace), n in t.items()}}
    assert kinds(group("Ico").discrete_generators) == {
        (1, 3): 1, (1, 0): 20, (1, -1): 15, (1, phi): 12, (1, round(1 - phi, 6)): 12}  # fmt: skip


def test_all_crystal_classes_are_there_once():
    counted = {symbol: kinds(group(name).discrete_generators) for symbol, name in CRYSTALS.items()}
    assert len(counted) == 32
    assert len({tuple(sorted(c.items())) for c in counted.values()}) == 32
    assert all(trace == round(trace) for c in counted.values() for _, trace in c), "crystals have no 5-fold axis"


@pytest.mark.parametrize("symbol", POINT_GROUPS)
def test_point_groups_have_both_names(symbol):
    schoenflies, name = POINT_GROUPS[symbol]
    assert groups.get(symbol) == groups.point_group(symbol) == groups.point_group(schoenflies) == group(name)
    ascii = [s.replace("∞", "inf") for s in (symbol, schoenflies)]
    assert [groups.point_group(s) for s in ascii] == [group(name)] * 2
    assert groups.get(ascii[0]) == group(name)
    assert groups.point_groups()[symbol][0] == schoenflies
    if schoenflies in ("C2", "C3", "C4", "C6", "D3", "D4", "D6", "S4"):
        assert groups.get(schoenflies) == group(schoenflies) != group(name)
    elif schoenflies in ("C1", "D2", "O"):
        with pytest.raises(GroupError, match="could mean"):
            groups.get(schoenflies)
    else:
        assert groups.get(schoenflies) == groups.get(ascii[1]) == group(name)


def test_point_groups_are_all_there_and_apart():
    assert set(groups.point_groups()) == set(POINT_GROUPS)
    assert len(POINT_GROUPS) == 39
    assert len({groups.point_group(symbol).digest for symbol in POINT_GROUPS}) == 39


def test_other_spellings_of_point_groups():
    for same in (("-3", "S6", "C3i", "−3", "3̄"), ("m-3m", "m3m"), ("-1", "S2"),
                 ("4/mmm", "4 / mmm"), ("∞/mm", "inf/mmm", "Dinfh"), ("-6m2", "-62m"), ("m", "C1h")):
        assert len({groups.point_group(s).digest for s in same}) == 1
    assert groups.point_group("S4").d == 3 and groups.point_group("-4").order == 4
    with pytest.raises(GroupError, match=r"S6.*S\(6\).*get\('-3'\)"):
        groups.get("S6")
    with pytest.raises(GroupError, match="no point group is called '4/mm'; close to it: .*4/m"):
        groups.point_group("4/mm")


# ---- identity -------------------------------------------------------------------------------------------------


def test_digests_tell_groups_apart():
    assert len({group(name).digest for name in TABLE}) == len(TABLE)
    assert group("Trivial2").digest != group("Trivial3").digest


@every_group
def test_digest_ignores_the_name(name):
    g = group(name)
    assert g.digest == group(name).digest
    assert MatrixGroup("another name", g.discrete_generators, g.lie_algebra, d=g.d).digest == g.digest


# ---- names ----------------------------------------------------------------------------------------------------


@every_group
def test_names_resolve(name):
    assert groups.get(name) == group(name)
    assert groups.get(group(name).name) == group(name)


def test_families_resolve_with_their_numbers():
    assert groups.get("C(7)").order == 7
    assert groups.get(" Opq( 2 , 1 ) ").d == 3
    assert groups.get("SO(4)") == groups.SO(4)
    assert groups.get("Oh()") == groups.Oh()
    assert groups.families()["Dnd"](5).order == 20


@pytest.mark.parametrize(("name", "hint"), [
    ("lorenz", "Lorentz"), ("SO2Z", "SO2z"), ("oh", "Oh"), ("C7", r"C\(7\)"), ("C5v", r"Cnv\(5\)"), ("SO9", r"SO\(9\)"),
])  # fmt: skip
def test_unknown_names_are_answered_with_near_ones(name, hint):
    with pytest.raises(GroupError, match=f"{name!r}; close to it: .*{hint}"):
        groups.get(name)


@pytest.mark.parametrize(("name", "form"), [("C", "C(n)"), ("C(7", "C(n)"), ("Opq", "Opq(p, q)"), ("GL", "GL(n)")])
def test_a_family_is_no_group(name, form):
    with pytest.raises(GroupError) as e:
        groups.get(name)
    text = str(e.value)
    assert text.startswith(f"no group is called {name!r}; ") and f" is a family, {form} with" in text
    assert groups.get(re.search(r"as in '(.*)'$", text)[1]).d > 0


@pytest.mark.parametrize("name", [
    "", "(3)", "C(1+1)", "C(n)", "C(-4)", "C(2,)", "C(9999999)", "__import__('os')", "get(3)", "catalogue()",
    "count(3)", "C(4).order", "C(४)",
])  # fmt: skip
def test_nothing_but_names_and_numbers_is_understood(name):
    with pytest.raises(GroupError, match="no group is called"):
        groups.get(name)


@pytest.mark.parametrize("name", ["C()", "C(1,2)", "Oh(3)", "Opq(3)", "Lorentz(1,3)"])
def test_the_numbers_must_fit_the_family(name):
    with pytest.raises(GroupError, match="takes . numbers"):
        groups.get(name)


@pytest.mark.parametrize("make", [
    lambda: groups.C(0), lambda: groups.D(-1), lambda: groups.SO(2.5), lambda: groups.O("3"), lambda: groups.S(0),
    lambda: groups.Trivial(True), lambda: groups.SU(1), lambda: groups.U(0), lambda: groups.Sp(3),
    lambda: groups.Opq(0, 0), lambda: groups.SOpq(-1, 2), lambda: groups.S2n(0), lambda: groups.get("Dnh(0)"),
])  # fmt: skip
def test_impossible_sizes_are_refused(make):
    with pytest.raises(GroupError, match="whole number|even"):
        make()


# ---- new groups from old --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inner", "d", "axes"), [
    (groups.Octa(), 5, [0, 2, 4]), (groups.O(3), 4, [1, 2, 3]), (groups.O11(), 4, [0, 3]),
    (groups.SU(2), 5, [4, 3, 2, 1]), (groups.Trivial(2), 3, [0, 1]),
])  # fmt: skip
def test_embedding_is_the_group_on_its_axes_and_the_identity_elsewhere(inner, d, axes):
    outer = groups.Embed(inner, d, axes)
    others = np.setdiff1d(range(d), axes)
    assert (outer.d, outer.order) == (d, inner.order)
    g = outer.sample(20, 0)
    expected = np.broadcast_to(np.eye(d), g.matrix.shape)
    np.testing.assert_array_equal(g.matrix[:, others], expected[:, others])
    np.testing.assert_array_equal(g.matrix[:, :, others], expected[:, :, others])
    block = g.evaluate(inner.discrete_generators, inner.lie_algebra) if inner.order != 1 else np.eye(inner.d)
    expected = np.broadcast_to(block, (20, inner.d, inner.d))
    np.testing.assert_allclose(g.matrix[np.ix_(range(20), axes, axes)], expected, atol=1e-13)


def test_embedding_agrees_with_the_groups_about_z():
    assert groups.Embed(groups.C(4), 3, [0, 1]) == groups.Cz(4)
    assert groups.Embed(groups.SO(2), 3, [0, 1]) == groups.SO2z()
    rotations = groups.Embed(groups.O(3), 4, [1, 2, 3])
    assert residual(keeps(MINKOWSKI), rotations.sample(20, 0).matrix) < 1e-10


@pytest.mark.parametrize(("d", "axes"), [(3, [0]), (3, [0, 0]), (3, [1, 3]), (3, [0, -1]), (1, [0, 1]), (3, [0, 1, 2])])
def test_embedding_refuses_axes_that_do_not_fit(d, axes):
    with pytest.raises(GroupError, match="axes|axis"):
        groups.Embed(groups.C(4), d, axes)


def test_generated_joins_groups():
    assert groups.Generated("D4", groups.C(4), groups.D(1)) == groups.D(4)
    assert groups.Generated("Oh", groups.Octa(), groups.Inv()) == groups.Oh()
    assert groups.Generated("O(2) x Inv", groups.SO2z(), groups.M(), groups.Inv()).is_compact
    apart = [groups.Embed(groups.C(3), 4, [0, 1]), groups.Embed(groups.C(5), 4, [2, 3])]
    assert groups.Generated("C3 x C5", *apart).order == 15


def test_generated_refuses_different_spaces():
    with pytest.raises(GroupError, match="one space"):
        groups.Generated("mixed", groups.C(4), groups.SO(3))
    with pytest.raises(GroupError, match="one space"):
        groups.Generated("empty")


def test_the_listing_has_every_name(capsys):
    assert cli.main(["groups"]) == 0
    top, families = capsys.readouterr().out.split("\n\n")
    rows = {line.split()[0]: line.split() for line in top.splitlines()[1:]}
    assert set(rows) == set(TABLE)
    assert rows["Oh"][1:] == ["3", "48", "0", "m-3m", "Oh"]
    assert rows["Rubik"][1:3] == ["48", "43252003274489856000"]
    assert rows["Lorentz"][1:4] == ["4", "infinite", "6"]
    assert set(POINT_GROUPS) <= {row[4] for row in rows.values() if len(row) > 4}
    assert all(f"  {name}(" in families for name in groups.families())


# ---- lattice coordinates ----------------------------------------------------------------------------------------

# columns are the vectors of a cell: conjugation leaves rounding in entries that are zero, beside entries that are one
CELLS = {
    "hexagonal": np.array([[1, -0.5, 0], [0, 3**0.5 / 2, 0], [0, 0, 1.633]]),
    "monoclinic": np.array([[5.1, 0.3, -1.7], [0, 7.2, 0.4], [0, 0, 9.3]]),
    "triclinic": np.array([[3.1, 1.3, -0.7], [0, 4.2, 1.4], [0, 0, 6.3]]),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("symbol", groups.point_groups())
def test_point_groups_in_lattice_coordinates(symbol, cell):
    base, to = groups.point_group(symbol), CELLS[cell]
    discrete, lie = (np.linalg.inv(to) @ m @ to for m in (base.discrete_generators, base.lie_algebra))
    there = MatrixGroup(symbol, discrete, lie, d=3)
    assert (there.order, there.is_compact) == (base.order, True)


@pytest.mark.parametrize("error", [1e-18, 1e-16, 1e-14])
def test_rounding_beside_a_diagonal_is_no_shear(error):
    assert MatrixGroup("inversion", [[[-1, error], [0, -1]]]).order == 2
