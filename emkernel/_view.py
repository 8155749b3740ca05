"""How a matrix group is looked at: coordinates without units, and the two or three directions that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .errors import GroupError, SolverError
from .matrix_group import MatrixGroup
from .rep import V
from .solver.forms import invariant_forms

__all__ = ["View", "axes_of", "display", "plane_of"]

COORDINATES = 10  # dimension up to which all coordinate planes are tried
TURNS = 60  # order from which an action on a plane counts as that of a rotation by any angle
FREE = 100  # what a one-parameter subgroup counts, beside that order
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class View:
    """y = change · x, of which the directions ``axes`` are drawn, and those of ``plane`` where a plane is.

    Attributes:
        change, inverse: (d, d) to coordinates where a compact group is orthogonal, any other without units; and back.
        axes: (k, d) orthonormal rows, k = min(d, 3).
        plane: (min(d, 2), d) orthonormal rows: a plane that generators preserve, as many as possible.
        axis_names, plane_names: what is written at them.
        note: which coordinates, and which projection.
    """

    change: np.ndarray
    inverse: np.ndarray
    axes: np.ndarray
    plane: np.ndarray
    axis_names: tuple[str, ...]
    plane_names: tuple[str, ...]
    note: str

    @classmethod
    def of(cls, G: MatrixGroup, positions: np.ndarray) -> View:
        """The view that suits a group and an orbit of it.

        Args:
            G: any matrix group.
            positions: (n, d) points of the orbit.
        """
        change, inverse, note = display(G)
        letter = "y" if note else "x"
        forms = _forms(G, inverse)
        plane = plane_of([change @ h @ inverse for h in G.discrete_generators],
                         [change @ A @ inverse for A in G.lie_algebra], G.d, forms)  # fmt: skip
        axes, kept = axes_of(plane, positions @ change.T)
        if G.d > 3:
            note += (f" Drawn: {G.d} dimensions projected to 3, a plane that generators preserve and the direction in "
                     f"which the orbit then spreads most; {100 * kept:.0f} % of its spread is in them.")  # fmt: skip
        if len(forms) and not _is_seen(plane, forms):
            note += " The invariant forms vanish on the plane, and what depends on them alone is constant there."
        names = [_names(rows, letter) for rows in (axes, plane)]
        return cls(change, inverse, axes, plane, *names, note.strip())

    def to_plane(self, points: np.ndarray) -> np.ndarray:
        """The positions (n, d) of points (n, 2) of the plane."""
        return points @ self.plane @ self.inverse.T


def display(G: MatrixGroup) -> tuple[np.ndarray, np.ndarray, str]:
    """(change, inverse, what it is): coordinates where a compact group is orthogonal, any other without units."""
    try:
        basis = G.orthogonal_basis
    except GroupError:  # whether it is compact is not decided
        basis = None
    change = np.diag(G._units) if basis is None else basis
    if np.abs(change - np.eye(G.d)).max() < 1e-9:
        return np.eye(G.d), np.eye(G.d), ""
    diagonal = not np.any(change - np.diag(np.diag(change)))
    if diagonal:
        what = f"diag({', '.join(f'{v:.3g}' for v in np.diag(change))})"
    else:
        what = "[" + ", ".join("[" + ", ".join(f"{v:.3g}" for v in row) + "]" for row in change) + "]"
    what = what if len(what) < 120 else "a diagonal matrix" if diagonal else "an upper triangular matrix"
    why = "without units" if basis is None else "where the group is orthogonal"
    return change, np.linalg.inv(change), f"In coordinates y = L x {why}, L = {what}."


def _forms(G: MatrixGroup, inverse: np.ndarray) -> np.ndarray:
    """The symmetric invariant forms (r, d, d) of a group that is not compact, in the coordinates that are drawn."""
    try:
        if G.is_compact:
            return np.zeros((0, G.d, G.d))  # positive on every plane
        return inverse.T @ invariant_forms(V(G)).symmetric @ inverse
    except (GroupError, SolverError):
        return np.zeros((0, G.d, G.d))


def _is_seen(plane: np.ndarray, forms: np.ndarray) -> bool:
    """Whether one of the forms does not vanish on a plane."""
    return bool(np.any(np.abs(plane @ forms @ plane.T).max((1, 2)) > 1e-6 * np.abs(forms).max((1, 2))))


def plane_of(
    discrete: Sequence[np.ndarray], lie: Sequence[np.ndarray], d: int, forms: np.ndarray | None = None
) -> np.ndarray:
    """(min(d, 2), d) orthonormal rows of a plane on which as much of the group as possible acts.

    Candidates are the coordinate planes and those of the eigenvectors of the generators. A generator that preserves a
    plane and moves it counts the logarithm of the order of its action. Planes on which the forms (r, d, d) that the
    group keeps vanish come after all others on which anything acts: kernels show little there.
    """
    if d < 3:
        return np.eye(d)
    moves = [(h, False) for h in discrete] + [(A, True) for A in lie]
    planes = [np.eye(d)[list(pair)] for pair in combinations(range(d), 2)] if d <= COORDINATES else [np.eye(d)[:2]]
    planes += [p for m, is_lie in moves for p in _planes(m if is_lie else m - np.eye(d))]
    seen = [True if forms is None or not len(forms) else _is_seen(plane, forms) for plane in planes]
    actions = [_action(plane, moves) for plane in planes]
    best = max(range(len(planes)), key=lambda i: (seen[i] and actions[i][0] > 0, actions[i]))
    return planes[best]


def _planes(m: np.ndarray) -> list[np.ndarray]:
    """Planes that A, or h - 1, preserves: of a pair of complex or two real eigenvectors, or of v and m v."""
    values, vectors = np.linalg.eig(m)
    size = max(np.abs(values).max(), 1e-300)
    turned = [vectors[:, i] for i in np.argsort(-values.imag, kind="stable") if values[i].imag > 1e-6 * size]
    pairs = [(v.real, v.imag) for v in turned[:8]]
    straight = [vectors[:, i].real for i in np.argsort(-np.abs(values), kind="stable")
                if abs(values[i].imag) <= 1e-6 * size]  # fmt: skip
    pairs += list(combinations(straight[:4], 2))
    top = np.linalg.svd(m)[2][0]
    pairs.append((top, m @ top))
    found = []
    for pair in pairs:
        q, r = np.linalg.qr(np.stack([v / max(np.linalg.norm(v), 1e-300) for v in pair], 1))
        if abs(r[1, 1]) > 1e-6 * abs(r[0, 0]):
            found.append((q * np.sign(np.diag(r))).T)
    return found


def _action(plane: np.ndarray, moves: list[tuple[np.ndarray, bool]]) -> tuple[float, int, float]:
    """(how much of the group acts on a plane, the rank of what does, how far it is from orthogonal)."""
    weight, rank, skew = 0.0, 0, 0.0
    for m, is_lie in moves:
        image = m @ plane.T
        small = plane @ image
        size = max(1e-300, np.linalg.norm(m, 2))
        if np.abs(image - plane.T @ small).max() > 1e-9 * size:
            continue
        step = small if is_lie else small - np.eye(2)
        if np.abs(step).max() < 1e-6 * size:
            continue
        weight += np.log(FREE if is_lie else _order(small))
        rank = max(rank, int(np.linalg.matrix_rank(step, tol=1e-6 * size)))
        skew = max(skew, float(np.abs(small + small.T if is_lie else small.T @ small - np.eye(2)).max() / size))
    return round(weight, 6), rank, round(skew, 6)


def _order(small: np.ndarray) -> int:
    """The least q with small^q = 1, at most ``TURNS``."""
    power = small
    for q in range(1, TURNS):
        if np.abs(power - np.eye(2)).max() < 1e-6:
            return q
        power = power @ small
    return TURNS


def axes_of(plane: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """(axes, share of the spread in them): the coordinates up to three dimensions, else the plane and one direction."""
    d = points.shape[1]
    if d <= 3:
        return np.eye(d), 1.0
    off = points - points.mean(0)
    rest = off - off @ plane.T @ plane
    total, spread = (off**2).sum(), np.linalg.svd(rest, full_matrices=False)
    along = ((rest @ (np.eye(d) - plane.T @ plane)) ** 2).sum(0)
    i = int(np.argmax(along >= 0.8 * along.max()))
    third = spread[2][0] * np.sign(spread[2][0][np.abs(spread[2][0]).argmax()])
    # a coordinate is easier to read than the direction of largest spread, where it is nearly as good
    if along[i] > 0.5 * spread[1][0] ** 2 and np.abs(plane[:, i]).max() < 1e-9:
        third = np.eye(d)[i]
    elif not spread[1][0] > 1e-9 * np.sqrt(total):
        third = np.linalg.svd(plane)[2][2]
    axes = np.concatenate([plane, third[None]])
    return axes, float(((off @ axes.T) ** 2).sum() / total) if total else 1.0


def _names(rows: np.ndarray, letter: str) -> tuple[str, ...]:
    """Names of directions: a coordinate, a combination of three at most, or a letter of their own."""
    names = []
    for k, row in enumerate(rows):
        at = [i for i in range(len(row)) if abs(row[i]) > 1e-6]
        terms = [(row[i], letter + str(i + 1).translate(SUBSCRIPTS)) for i in at]
        if len(at) == 1 and abs(row[at[0]] - 1) < 1e-6:
            names.append(terms[0][1])
        elif len(at) <= 3:
            text = " ".join(f"{'−' if c < 0 else '+'} {abs(c):.2f}{name}" for c, name in terms)
            names.append(text.removeprefix("+ ").replace("− ", "−", int(text.startswith("−"))))
        else:
            names.append("u" + str(k + 1).translate(SUBSCRIPTS))
    return tuple(names)
