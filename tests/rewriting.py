"""Groups with everything known on paper, and the ways in which the same group may be written down badly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import gcd, pi

import numpy as np
import scipy.linalg
from oracles import closure
from tables import (
    BOOST,
    CYCLE,
    DIAGONAL,
    FIFTH,
    HALF_Z,
    NILPOTENT,
    PARITY,
    QUARTER_Z,
    QUATERNION_I,
    QUATERNION_W,
    TIME,
    blocks,
    permutation,
    so,
    so13,
    su,
    turn,
)

# (p, q, r) for Hom(V^p ⊗ V*^q, V^r), where d^(p+q+r) stays small
PROBLEMS = ((1, 0, 1), (2, 0, 1), (0, 1, 1), (1, 1, 1), (2, 0, 2), (1, 1, 0), (2, 0, 0), (1, 1, 2))
HALF_TURNS = np.arange(64) * (2 * pi / 64)


@dataclass(frozen=True, eq=False)
class Known:
    """A group, real, and what is known of it.

    Attributes:
        discrete, lie: generators, (M, d, d) and (D, d, d).
        hom: dim Hom(V^p ⊗ V*^q, V^r) as a function of (p, q, r).
        pieces: {(dimension, type, multiplicity): how many classes of irreducibles of V ⊗ V}; None where V ⊗ V does
            not split.
        order: number of elements, None when infinite.
        compact: whether a positive invariant form exists.
    """

    discrete: np.ndarray
    lie: np.ndarray
    hom: Callable[[int, int, int], int]
    pieces: dict | None
    order: int | None = None
    compact: bool = True

    @property
    def d(self) -> int:
        return self.discrete.shape[-1]


# ---- counts -----------------------------------------------------------------------------------------------------


def by_characters(weight, chi, chi_of_inverse=None):
    """∫ χ(g)^(q+r) χ(g^-1)^p over the group: class functions at points, with weights that sum to 1."""
    inverse = chi if chi_of_inverse is None else chi_of_inverse

    def hom(p, q, r):
        count = np.sum(weight * inverse**p * chi ** (q + r))
        assert abs(count - round(count.real)) < 1e-6, "characters average to a whole number"
        return round(count.real)

    return hom


def torus(rank):
    """Angles (64^rank, rank) that integrate trigonometric polynomials of degree below 64 exactly."""
    return np.stack(np.meshgrid(*[HALF_TURNS] * rank, indexing="ij"), -1).reshape(-1, rank)


def weyl(density, chi, rank=1):
    """The integration formula of Weyl for class functions of the eigenvalues' angles."""
    angles = torus(rank).T
    weight = density(*angles) * np.ones(angles.shape[1])
    character = chi(*angles)
    return weight / weight.sum(), character


def halves(*components):
    """A group of several components: the mean over each."""
    weight = np.concatenate([w for w, _ in components]) / len(components)
    return weight, np.concatenate([c for _, c in components])


def over_elements(discrete):
    """The mean of products of characters over all elements, listed by brute force."""
    g = closure(discrete, discrete.shape[-1])
    return by_characters(
        np.full(len(g), 1 / len(g)), np.trace(g, axis1=1, axis2=2), np.trace(np.linalg.inv(g), axis1=1, axis2=2)
    )


def by_jordan_blocks(p, q, r):
    """Hom of a unipotent 2×2: V^n has the Jordan blocks of the n-th power of spin 1/2; Hom(J_a, J_b) has min(a, b)."""

    def sizes(n):
        out = {1: 1}
        for _ in range(n):
            new = Counter()
            for size, many in out.items():
                for s in {size + 1, size - 1} - {0}:
                    new[s] += many
            out = new
        return out

    return sum(m * n * min(a, b) for a, m in sizes(p + q).items() for b, n in sizes(r).items())


def exactly(lie):
    """Hom by the rank, over a prime field, of the constraint of generators whose entries are whole numbers."""

    def hom(p, q, r):
        d = lie.shape[-1]
        rows = []
        for a in np.round(lie).astype(np.int64):
            factors = [a] * r + [-a.T] * p + [a] * q
            total = np.zeros((d ** len(factors),) * 2, np.int64)
            for i, f in enumerate(factors):
                left, right = (np.eye(d**n, dtype=np.int64) for n in (i, len(factors) - 1 - i))
                total += np.kron(np.kron(left, f), right)
            rows.append(total)
        c = np.concatenate(rows)
        return c.shape[1] - _rank_modulo(c, 1_000_003)

    return hom


def _rank_modulo(m, prime):
    m, rank = m % prime, 0
    for column in range(m.shape[1]):
        below = np.flatnonzero(m[rank:, column])
        if len(below):
            m[[rank, rank + below[0]]] = m[[rank + below[0], rank]]
            m[rank] = m[rank] * pow(int(m[rank, column]), -1, prime) % prime
            others = np.flatnonzero(m[:, column])
            others = others[others != rank]
            m[others] = (m[others] - m[others, column, None] * m[rank]) % prime
            rank += 1
    return rank


# ---- groups -----------------------------------------------------------------------------------------------------


def real(m):
    """X + iY -> [[X, -Y], [Y, X]]."""
    m = np.asarray(m)
    return np.block([[m.real, -m.imag], [m.imag, m.real]])


def finite(order, pieces, *discrete):
    h = np.array(discrete, float)
    hom = over_elements(h) if order <= 200 else by_characters(*weyl(lambda t: 1.0, lambda t: 2 * np.cos(t)))
    return Known(h, np.zeros((0, *h.shape[1:])), hom, Counter(pieces), order, True)


def continuous(count, pieces, lie, discrete=(), compact=True):
    a = np.array(lie, float)
    d = (a if len(a) else np.array(discrete)).shape[-1]
    hom = count if callable(count) else by_characters(*count)
    pieces = None if pieces is None else Counter(pieces)
    return Known(np.reshape(discrete, (-1, d, d)).astype(float), a.reshape(-1, d, d), hom, pieces, None, compact)


def one(*dimensions):
    """Each real, each of multiplicity one."""
    return [(n, "real", 1) for n in dimensions]


def symplectic4():
    def unit(i, j):
        m = np.zeros((4, 4))
        m[i, j] = 1
        return m

    mixed = [unit(i, j) - unit(2 + j, 2 + i) for i in (0, 1) for j in (0, 1)]
    upper = [unit(0, 2), unit(1, 3), unit(0, 3) + unit(1, 2)]
    return mixed + upper + [m.T for m in upper]


def affine(*entries):
    """3×3 or larger Lie algebra generators with whole entries {(i, j): value}."""
    d = 1 + max(max(ij) for e in entries for ij in e)
    out = np.zeros((len(entries), d, d))
    for a, e in zip(out, entries):
        for (i, j), value in e.items():
            a[i, j] = value
    return out


def sine2(t):
    return np.sin(t) ** 2


SPIN1 = weyl(lambda t: 1 - np.cos(t), lambda t: 1 + 2 * np.cos(t))
CIRCLE = weyl(lambda t: 1.0, lambda t: 2 * np.cos(t))
MIRRORS = (np.ones(1), np.zeros(1))
FOUR = weyl(lambda a, b: sine2(a) * sine2(b), lambda a, b: 4 * np.cos(a) * np.cos(b), 2)
FOUR_IMPROPER = weyl(sine2, lambda t: 2 * np.cos(t))
SE2 = affine({(1, 0): 1, (0, 1): -1}, {(0, 2): 1}, {(1, 2): 1})
GALILEI = affine({(1, 0): 1, (0, 1): -1}, {(0, 2): 1}, {(1, 2): 1}, {(0, 3): 1}, {(1, 3): 1}, {(2, 3): 1})
BOREL3 = affine({(0, 0): 1, (1, 1): -1}, {(1, 1): 1, (2, 2): -1}, {(0, 1): 1}, {(1, 2): 1})
Z3 = blocks(so(2)[0], np.zeros((1, 1)))


def unitary2():
    angles = torus(2).T
    weight = np.abs(np.exp(1j * angles[0]) - np.exp(1j * angles[1])) ** 2
    chi = np.exp(1j * angles).sum(0)
    return by_characters(weight / weight.sum(), chi, chi.conj())


def line():
    """diag(t, 1)."""
    return by_characters(np.full(64, 1 / 64), 1 + np.exp(1j * HALF_TURNS), 1 + np.exp(-1j * HALF_TURNS))


C_PIECES = [(1, "real", 2), (2, "complex", 1)]
D_PIECES = one(1, 1, 2)
# fmt: off
KNOWN = {
    # finite
    "trivial": lambda: finite(1, [(1, "real", 4)], np.eye(2)),
    "C3": lambda: finite(3, C_PIECES, turn(2 * pi / 3)),
    "C4": lambda: finite(4, [(1, "real", 2)] * 2, turn(pi / 2)),
    "C12": lambda: finite(12, C_PIECES, turn(pi / 6)),
    "C360": lambda: finite(360, C_PIECES, turn(pi / 180)),
    "C10007": lambda: finite(10_007, C_PIECES, turn(2 * pi / 10_007)),
    "C1000000": lambda: finite(1_000_000, C_PIECES, turn(2 * pi / 1_000_000)),
    "D4": lambda: finite(8, one(1, 1, 1, 1), turn(pi / 2), np.diag([1.0, -1])),
    "D5": lambda: finite(10, D_PIECES, turn(2 * pi / 5), np.diag([1.0, -1])),
    "D360": lambda: Known(
        np.array([turn(pi / 180), np.diag([1.0, -1])]), np.zeros((0, 2, 2)), by_characters(*halves(CIRCLE, MIRRORS)),
        Counter(D_PIECES), 720,
    ),
    "mirror": lambda: finite(2, [(1, "real", 5), (1, "real", 4)], np.diag([-1.0, 1, 1])),
    "D3d": lambda: finite(
        12, [(1, "real", 2), (1, "real", 1), (2, "real", 3)],
        blocks(turn(2 * pi / 3), np.eye(1)), np.diag([1.0, -1, -1]), -np.eye(3),
    ),
    "T": lambda: finite(12, [(1, "real", 1), (2, "complex", 1), (3, "real", 2)], CYCLE, HALF_Z),
    "Oh": lambda: finite(48, one(1, 2, 3, 3), CYCLE, QUARTER_Z, -np.eye(3)),
    "I": lambda: finite(60, one(1, 3, 5), CYCLE, FIFTH),
    "S4": lambda: finite(
        24, [(1, "real", 2), (2, "real", 1), (3, "real", 3), (3, "real", 1)],
        permutation([1, 0, 2, 3]), permutation([1, 2, 3, 0]),
    ),
    "Q8": lambda: finite(8, [(1, "real", 4)] * 4, real(QUATERNION_I), real([[0, 1], [-1, 0]])),
    "2T": lambda: finite(24, [(1, "real", 4), (3, "real", 4)], real(QUATERNION_I), real(QUATERNION_W)),
    "2O": lambda: finite(
        48, [(1, "real", 4), (3, "real", 4)],
        real(QUATERNION_W), real(np.diag([1 + 1j, 1 - 1j]) / np.sqrt(2)),
    ),
    "C3 x C5": lambda: finite(
        15, [(1, "real", 4), (2, "complex", 1), (2, "complex", 1), (2, "complex", 2), (2, "complex", 2)],
        blocks(turn(2 * pi / 3), np.eye(2)), blocks(np.eye(2), turn(2 * pi / 5)),
    ),
    # compact
    "SO(2)": lambda: continuous(CIRCLE, C_PIECES, so(2)),
    "SO(2) about z": lambda: continuous(
        weyl(lambda t: 1.0, lambda t: 1 + 2 * np.cos(t)), [(1, "real", 3), (2, "complex", 2), (2, "complex", 1)], [Z3]
    ),
    "O(2)": lambda: continuous(halves(CIRCLE, MIRRORS), D_PIECES, so(2), [np.diag([1, -1])]),
    "SO(3)": lambda: continuous(SPIN1, one(1, 3, 5), so(3)),
    "O(3)": lambda: continuous(halves(SPIN1, (SPIN1[0], -SPIN1[1])), one(1, 3, 5), so(3), [-np.eye(3)]),
    "SU(2)": lambda: continuous(
        weyl(sine2, lambda t: 4 * np.cos(t)), [(1, "real", 4), (3, "real", 4)], [real(a) for a in su(2)]
    ),
    "U(1) x U(1)": lambda: continuous(
        weyl(lambda a, b: 1.0, lambda a, b: 2 * np.cos(a) + 2 * np.cos(b), 2),
        [(1, "real", 4)] + [(2, "complex", 1)] * 2 + [(2, "complex", 2)] * 2,
        [blocks(so(2)[0], np.zeros((2, 2))), blocks(np.zeros((2, 2)), so(2)[0])],
    ),
    "U(1) of weights 1, 2": lambda: continuous(
        weyl(lambda t: 1.0, lambda t: 2 * np.cos(t) + 2 * np.cos(2 * t)),
        [(1, "real", 4)] + [(2, "complex", 1)] * 2 + [(2, "complex", 2)] * 2,
        [blocks(so(2)[0], 2 * so(2)[0])],
    ),
    "SO(4)": lambda: continuous(FOUR, one(1, 3, 3, 9), so(4)),
    "O(2) x D3": lambda: _product(),
    # not compact, reductive
    "SO+(1,1)": lambda: continuous(CIRCLE, [(1, "real", 2), (1, "real", 1), (1, "real", 1)], [BOOST], compact=False),
    "O(1,1)": lambda: continuous(
        halves(CIRCLE, MIRRORS), D_PIECES, [BOOST], [DIAGONAL, -np.eye(2)], compact=False
    ),
    "SO+(1,3)": lambda: continuous(
        FOUR, [(1, "real", 1), (6, "complex", 1), (9, "real", 1)], so13(), compact=False
    ),
    "O(1,3)": lambda: continuous(halves(FOUR, FOUR_IMPROPER), one(1, 6, 9), so13(), [TIME, PARITY], compact=False),
    "SL(2)": lambda: continuous(
        weyl(sine2, lambda t: 2 * np.cos(t)), one(1, 3), [NILPOTENT, NILPOTENT.T, DIAGONAL], compact=False
    ),
    "Sp(4)": lambda: continuous(
        weyl(
            lambda a, b: sine2(a) * sine2(b) * (np.cos(a) - np.cos(b)) ** 2,
            lambda a, b: 2 * np.cos(a) + 2 * np.cos(b), 2,
        ),
        one(1, 5, 10), symplectic4(), compact=False,
    ),
    "GL(2)": lambda: continuous(
        unitary2(), one(1, 3), np.eye(4).reshape(4, 2, 2), compact=False
    ),
    "dilation": lambda: continuous(
        line(), [(1, "real", 1)] * 2 + [(1, "real", 2)], np.zeros((0, 2, 2)), [np.diag([2.0, 1])], compact=False
    ),
    "dilation by a millionth": lambda: continuous(
        line(), [(1, "real", 1)] * 2 + [(1, "real", 2)], np.zeros((0, 2, 2)), [np.diag([1e-6, 1])], compact=False
    ),
    # not reductive
    "shear": lambda: continuous(by_jordan_blocks, None, [NILPOTENT], compact=False),
    "shear by one": lambda: continuous(
        by_jordan_blocks, None, np.zeros((0, 2, 2)), [np.eye(2) + NILPOTENT], compact=False
    ),
    "Borel": lambda: continuous(weyl(sine2, lambda t: 2 * np.cos(t)), None, [DIAGONAL, NILPOTENT], compact=False),
    "Borel of SL(3)": lambda: continuous(exactly(BOREL3), None, BOREL3, compact=False),
    "SE(2)": lambda: continuous(exactly(SE2), None, SE2, compact=False),
    "Galilei": lambda: continuous(exactly(GALILEI), None, GALILEI, compact=False),
}
# fmt: on


def _product():
    """O(2) on the first two coordinates, D3 on the others: characters add."""
    w, c = halves(CIRCLE, MIRRORS)
    chi3 = np.array([2.0, -1, -1, 0, 0, 0])
    weight, chi = np.repeat(w, 6) / 6, (c[:, None] + chi3).reshape(-1)
    # O(2): 1 + det + spin 2; D3: 1 + sign + the plane itself; the mixed products are irreducible and meet twice
    pieces = [(1, "real", 2), (1, "real", 1), (1, "real", 1), (2, "real", 1), (2, "real", 1), (4, "real", 2)]
    e = np.eye(2)
    return continuous(
        (weight, chi), pieces, [blocks(so(2)[0], np.zeros((2, 2)))],
        [blocks(np.diag([1.0, -1]), e), blocks(e, turn(2 * pi / 3)), blocks(e, np.diag([1.0, -1]))],
    )


@cache
def known(name: str) -> Known:
    """The group of this name."""
    return KNOWN[name]()


@cache
def expected(name: str, problem: tuple[int, int, int]) -> int:
    """dim Hom(V^p ⊗ V*^q, V^r)."""
    return known(name).hom(*problem)


# ---- rewriting --------------------------------------------------------------------------------------------------


def skewed(rng, d, condition):
    """A matrix of this condition, its singular values spread evenly, or all but one equal."""
    u, v = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    spread = np.geomspace(1, condition, d) if rng.random() < 0.7 else np.r_[np.ones(d - 1), condition]
    return u @ np.diag(spread) @ v


def _of_norm_one(m):
    return m / (np.linalg.norm(m) or 1.0)


def _in_basis(h, a, s):
    back = np.linalg.inv(s)
    return [s @ m @ back for m in h], [s @ m @ back for m in a]


def conjugate(rng, h, a, condition):
    return _in_basis(h, a, skewed(rng, len((h or a)[0]), condition))


def orthogonal(rng, h, a):
    return conjugate(rng, h, a, 1.0)


def binary_units(rng, h, a):
    """Coordinates in units that are powers of two, which rounds nothing."""
    return _in_basis(h, a, np.diag(2.0 ** rng.integers(-6, 7, len((h or a)[0]))))


def physical_units(rng, h, a):
    """The first coordinate in other units: seconds where the others are metres."""
    units = np.ones(len((h or a)[0]))
    units[0] = 1 / 299_792_458 if rng.random() < 0.5 else 10 ** rng.uniform(-8, 8)
    return _in_basis(h, a, np.diag(units))


def rescale(rng, h, a):
    return h, [m * 10 ** rng.uniform(-6, 6) for m in a]


def duplicate(rng, h, a):
    return [[*x, x[rng.integers(len(x))]] if len(x) else x for x in (h, a)]


def permute(rng, h, a):
    return [h[i] for i in rng.permutation(len(h))], [a[i] for i in rng.permutation(len(a))]


def append_product(rng, h, a):
    if h:
        x, y = (h[rng.integers(len(h))] for _ in range(2))
        h = [*h, x @ y if rng.random() < 0.6 else np.linalg.inv(x)]
    return h, a


def append_bracket(rng, h, a):
    if a:
        x, y = (a[rng.integers(len(a))] for _ in range(2))
        x, y = _of_norm_one(x), _of_norm_one(y)
        new = x @ y - y @ x
        if np.abs(new).max() < 1e-9 * max(np.abs(x @ y).max(), 1e-300) or rng.random() < 0.5:
            new = rng.standard_normal() * x + rng.standard_normal() * y
        a = [*a, new]
    return h, a


def append_element(rng, h, a):
    """An element of the connected component, as one more discrete generator."""
    if a:
        x = sum(rng.standard_normal() * _of_norm_one(m) for m in a)
        h = [*h, scipy.linalg.expm(x * (0.7 / max(np.abs(np.linalg.eigvals(x)).max(), 0.1)))]
    return h, a


def append_nothing(rng, h, a):
    """The identity and the zero generator."""
    d = len((h or a)[0])
    return ([*h, np.eye(d)], a) if rng.random() < 0.5 else (h, [*a, np.zeros((d, d))])


def mix(rng, h, a):
    """Invertible combinations of the algebra."""
    if a:
        a = [_of_norm_one(m) for m in a]
        a = list(np.tensordot(skewed(rng, len(a), 10 ** rng.uniform(0, 2)), a, 1))
    return h, a


def nielsen(rng, h, a):
    """h_i -> h_i h_j or h_i^-1: another generating set of the same group."""
    h = list(h)
    for _ in range(3 if h else 0):
        i, j = rng.integers(len(h), size=2)
        h[i] = h[i] @ h[j] if i != j else np.linalg.inv(h[i])
    return h, a


def turn_generators(rng, h, a):
    """Each A by an element of the group: h A h^-1."""
    if h and a:
        x = h[rng.integers(len(h))]
        i = rng.integers(len(a))
        a = [*a[:i], x @ a[i] @ np.linalg.inv(x), *a[i + 1 :]]
    return h, a


def split_power(rng, h, a):
    """A generator of order n = bc with b, c coprime becomes its powers b and c; a prime power, another generator."""
    if not h:
        return h, a
    i, one = int(rng.integers(len(h))), np.eye(len(h[0]))
    n = next((q for q in range(1, 400) if np.abs(np.linalg.matrix_power(h[i], q) - one).max() < 1e-7), 0)
    if n < 3:
        return h, a
    coprime = [b for b in range(2, n) if n % b == 0 and gcd(b, n // b) == 1]
    if coprime:
        b = coprime[rng.integers(len(coprime))]
        powers = [b, n // b]
    else:
        powers = [rng.choice([k for k in range(1, n) if gcd(k, n) == 1])]
    return [*h[:i], *[np.linalg.matrix_power(h[i], int(p)) for p in powers], *h[i + 1 :]], a


def last_digit(rng, h, a):
    """Rounding errors of a few units in the last place."""
    return [[m * (1 + 2e-16 * rng.integers(-2, 3, m.shape)) for m in x] for x in (h, a)]


HARMLESS = (orthogonal, binary_units, rescale)
REWRITINGS = (
    *HARMLESS, physical_units, duplicate, permute, append_product, append_bracket, append_element, append_nothing, mix,
    nielsen, turn_generators, split_power, last_digit,
)  # fmt: skip


def rewritten(name, steps, condition=1.0, seed=0):
    """(discrete, lie) of the group after these steps, in a basis of this condition.

    Units are changed last, in the coordinates that the basis leads to: a rotated frame after seconds have become metres
    is a basis of condition 1e8, in which sixteen digits say nothing.
    """
    rng = np.random.default_rng(seed)
    base = known(name)
    h, a = list(base.discrete), list(base.lie)
    units = (physical_units, binary_units)
    for step in [s for s in steps if s not in units]:
        h, a = step(rng, h, a)
    if condition > 1:
        h, a = conjugate(rng, h, a, condition)
    for step in [s for s in steps if s in units]:
        h, a = step(rng, h, a)
    return h, a


def rounded(h, a, digits):
    """The generators as typed with so many significant digits."""

    def typed(m):
        return np.array([[float(f"{x:.{digits - 1}e}") for x in row] for row in m])

    return [typed(m) for m in h], [typed(m) for m in a]
