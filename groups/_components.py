"""The components of a compact group that is given by equations, from random points of it."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import scipy.linalg

from ._algebra import is_connected_to_one

__all__ = ["Connected", "along", "cosets", "moved", "points_of_stabiliser"]

MOST = 2000  # components
STEPS = 60
SAME = 1e-7


class Connected:
    """exp of a Lie algebra of antisymmetric matrices.

    Args:
        lie: (m, d, d) a basis, each of norm 1.

    Attributes:
        is_closed: whether it is seen to be a closed group: the weights of its centre are commensurate.
    """

    def __init__(self, lie: np.ndarray):
        self.lie = lie
        d = lie.shape[-1]
        rng = np.random.default_rng(0)
        self._kept = [] if len(lie) else [np.eye(d)]  # tensors that it keeps, one of each degree
        for degree in range(1, 4):
            if len(lie) and d**degree <= 512:
                one = [np.eye(d**k) for k in range(degree)]
                act = [sum(np.kron(np.kron(one[k], a), one[degree - 1 - k]) for k in range(degree)) for a in lie]
                _, s, vh = np.linalg.svd(np.concatenate(act))
                kept = vh[int((s > 1e-9).sum()) :]
                self._kept.append((rng.standard_normal(len(kept)) @ kept).reshape((d,) * degree))
        self.is_closed = _is_closed(lie)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, d, d) elements, nearly uniform."""
        out = np.broadcast_to(np.eye(self.lie.shape[-1]), (n, *self.lie.shape[1:]))
        for _ in range(4 if len(self.lie) else 0):
            out = out @ scipy.linalg.expm(np.tensordot(4 * rng.standard_normal((n, len(self.lie))), self.lie, 1))
        return out

    def fingerprint(self, h: np.ndarray) -> np.ndarray:
        """What h does to tensors that the group keeps: the same on a coset."""
        if not len(self.lie):
            return h.reshape(-1)
        return np.concatenate([moved(h[None], t).reshape(-1) for t in self._kept])

    def __contains__(self, h: np.ndarray) -> bool:
        """Whether an orthogonal h is seen to be in it; False means no more than not seen."""
        return np.abs(h - np.eye(len(h))).max() < SAME if not len(self.lie) else is_connected_to_one(h, self.lie)

    def find(self, h: np.ndarray, among: Sequence[np.ndarray], prints: np.ndarray) -> int | None:
        """The index of the coset that h is in, by representatives and their fingerprints."""
        near = np.flatnonzero(np.abs(prints - self.fingerprint(h)).max(1) < SAME).tolist()
        return next((i for i in near if among[i].T @ h in self), None)


def _is_closed(lie: np.ndarray) -> bool:
    brackets = [np.concatenate([(a @ b - b @ a).reshape(-1) for b in lie]) for a in lie]
    if not brackets:
        return True
    _, s, vh = np.linalg.svd(np.array(brackets).T, full_matrices=True)
    centre = np.tensordot(vh[int((s > 1e-9).sum()) :], lie, 1)
    if not len(centre):
        return True
    _, v = np.linalg.eigh(1j * np.tensordot(np.random.default_rng(1).standard_normal(len(centre)), centre, 1))
    weights = np.einsum("ji,kjl,li->ik", v.conj(), 1j * centre, v).real  # (d, dimension of the centre)
    independent = scipy.linalg.qr(weights.T, pivoting=True)[2][: len(centre)]
    ratios = (weights @ np.linalg.inv(weights[independent])).reshape(-1)
    return all(abs(r - float(Fraction(r).limit_denominator(100))) < 1e-9 for r in ratios)


def cosets(generators: Sequence[np.ndarray], part: Connected) -> list[np.ndarray] | None:
    """One element for each coset of ``part`` in the group that it generates with orthogonal matrices normalising it;
    None beyond ``MOST``."""
    found = [np.eye(part.lie.shape[-1])]
    prints = part.fingerprint(found[0])[None]
    for h in found:
        for g in generators:
            new = g @ h
            if part.find(new, found, prints) is None:
                found.append(new)
                prints = np.concatenate([prints, part.fingerprint(new)[None]])
                if len(found) > MOST:
                    return None
    return found


def points_of_stabiliser(starts: np.ndarray, lie: np.ndarray, tensors: Sequence[np.ndarray]) -> np.ndarray:
    """Elements g (n, d, d) with (g ⊗ g ⊗ ...) t = t for all tensors, reached from so many of the starts.

    Newton's method g <- exp(X) g, X in the Lie algebra, with the regularisation of Levenberg and Marquardt. It commutes
    with multiplication by an orthogonal element h of the stabiliser, g -> g h, so that from uniform starts it reaches
    each component of the stabiliser equally often.
    """
    g = starts
    for _ in range(STEPS if len(lie) else 0):
        rest, slopes = [], []
        for t in tensors:
            now = moved(g, t)
            rest.append((now - t).reshape(len(g), -1))
            slope = np.sum([along(lie[None], now[:, None], axis + 2) for axis in range(t.ndim)], 0)
            slopes.append(slope.reshape(len(g), len(lie), -1))
        r, J = np.concatenate(rest, 1), np.concatenate(slopes, 2)
        damping = np.clip((r**2).sum(1), 1e-13, 1.0)[:, None, None] * np.eye(len(lie))
        x = -np.linalg.solve(J @ J.transpose(0, 2, 1) + damping, J @ r[..., None])[..., 0]
        x = x / np.maximum(1.0, np.linalg.norm(x, axis=1, keepdims=True))
        g = scipy.linalg.expm(np.tensordot(x, lie, 1)) @ g
    rest = [np.abs(moved(g, t) - t).reshape(len(g), -1).max(1) for t in tensors]
    return g[np.max(rest, axis=0) < 1e-11]


def moved(g: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(g ⊗ g ⊗ ...) t for a batch of g."""
    out = np.broadcast_to(t, (len(g), *t.shape))
    for axis in range(t.ndim):
        out = along(g, out, axis + 1)
    return out


def along(g: np.ndarray, t: np.ndarray, axis: int) -> np.ndarray:
    """Matrices (..., d, d) on one axis of tensors (..., d, ..., d), batch by batch."""
    lead = g.ndim - 2
    t = np.moveaxis(t, axis, lead)
    out = g @ t.reshape(*t.shape[: lead + 1], -1)
    return np.moveaxis(out.reshape(*out.shape[:lead], *t.shape[lead:]), lead, axis)
