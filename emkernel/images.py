"""The matrices of a representation, which is all that the solver knows of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

__all__ = ["Images", "kron", "summed_error"]

MOST_POINTS = 2500


@dataclass(frozen=True, eq=False)
class Images:
    """The matrices of a representation: on the generators, and on group elements held out from solving.

    Attributes:
        discrete: (M, n, n) images of the discrete generators.
        lie: (D, n, n) images of the Lie algebra generators.
        held_out: (P, n, n) images of further group elements, on which solutions are verified.
        probes: unitary matrices of elements of the compact dual, real for a compact group, as Kronecker factors
            ((S, n_1, n_1), (S, n_2, n_2), ...), Π n_i = n; none when the group is not known to be reductive, or the
            images not to be orthogonal or closed under transpose with it.
        permuted: (points (M, N), frame (N, n)) where these are permutations of N points on an invariant subspace: the
            discrete generators send point i to points[:, i], the columns of the frame are orthonormal.
        error: how far the generators' images, relative to the larger of 1 and their norm, may be from what was meant;
            None where the digits with which they are written do not say so.
        digest: what the matrices are computed from: the bytes the user gave, and the operations since. Unlike the
            bytes of a computed matrix it is the same in every process.
    """

    discrete: np.ndarray
    lie: np.ndarray
    held_out: np.ndarray
    digest: str
    probes: tuple[np.ndarray, ...] = ()
    permuted: tuple[np.ndarray, np.ndarray] | None = None
    error: float | None = None

    @classmethod
    def of(cls, discrete: np.ndarray, lie: np.ndarray, digest: str) -> Images:
        """Images on the generators alone."""
        return cls(discrete, lie, np.zeros((0, *discrete.shape[1:])), digest)

    @classmethod
    def of_content(cls, discrete: np.ndarray, lie: np.ndarray, held_out: np.ndarray | None = None) -> Images:
        """Images identified by their bytes."""
        h = hashlib.sha256(str((discrete.shape, lie.shape)).encode())
        h.update((np.ascontiguousarray(discrete) + 0.0).tobytes())
        h.update((np.ascontiguousarray(lie) + 0.0).tobytes())
        n = discrete.shape[-1]
        return cls(discrete, lie, np.zeros((0, n, n)) if held_out is None else held_out, h.hexdigest())

    @classmethod
    def direct_sum(cls, parts: Sequence[Images]) -> Images:
        """ρ_1 ⊕ ρ_2 ⊕ ..."""
        kinds = [(p.discrete, p.lie, p.held_out) for p in parts]
        probes = [reduce(kron, p.probes) for p in parts] if all(p.probes for p in parts) else None
        return cls(
            *(_block_diagonal(matrices) for matrices in zip(*kinds)),
            _derived("sum", *(p.digest for p in parts)),
            () if probes is None else (_block_diagonal(probes),),
            error=max((p.error for p in parts if p.error is not None), default=None),
        )

    @property
    def size(self) -> int:
        return self.discrete.shape[-1]

    def dual(self) -> Images:
        """ρ*(h) = ρ(h)^-T, dρ*(A) = -dρ(A)^T."""
        return Images(
            _inverse(self.discrete).transpose(0, 2, 1),
            -self.lie.transpose(0, 2, 1),
            _inverse(self.held_out).transpose(0, 2, 1),
            _derived("dual", self.digest),
            tuple(p.conj() for p in self.probes),
            self.permuted,
            self.error and self.error * max((float(np.linalg.cond(h)) for h in self.discrete), default=1.0),
        )

    def tensor(self, other: Images) -> Images:
        """ρ_a ⊗ ρ_b on group elements, dρ_a ⊗ 1 + 1 ⊗ dρ_b on the algebra."""
        one, two = np.eye(self.size)[None], np.eye(other.size)[None]
        return Images(
            kron(self.discrete, other.discrete),
            kron(self.lie, two) + kron(one, other.lie),
            kron(self.held_out, other.held_out),
            _derived("tensor", self.digest, other.digest),
            (*self.probes, *other.probes) if self.probes and other.probes else (),
            self._pairs_of_points(other),
            summed_error(self, other),
        )

    def conjugate(self, to: np.ndarray, back: np.ndarray, name: str) -> Images:
        """to ρ back, e.g. the restriction to a subspace when the rows of ``to`` span it and ``to back = 1``.

        The probes go along where ``back`` is the transpose of ``to``.
        """
        orthogonal = np.abs(to.T - back).max(initial=0) < 1e-9
        return Images(
            to @ self.discrete @ back,
            to @ self.lie @ back,
            to @ self.held_out @ back,
            _derived(name, self.digest),
            (to @ self._act_by_probes(back),) if self.probes and orthogonal else (),
            (self.permuted[0], self.permuted[1] @ back) if self.permuted and orthogonal else None,
            self.error and self.error * float(np.linalg.norm(to, 2) * np.linalg.norm(back, 2)),
        )

    def _pairs_of_points(self, other: Images) -> tuple[np.ndarray, np.ndarray] | None:
        if self.permuted is None or other.permuted is None:
            return None
        (p, F), (q, H) = self.permuted, other.permuted
        if F.shape[0] * H.shape[0] > MOST_POINTS:
            return None
        return (p[:, :, None] * q.shape[1] + q[:, None, :]).reshape(len(p), -1), np.kron(F, H)

    def with_unitary_probes(self) -> Images:
        """The same with rounding that has gathered in the probes removed."""
        probes = (_nearest_unitary(p) for p in self.probes)
        return replace(self, probes=tuple(probes))

    def _act_by_probes(self, x: np.ndarray) -> np.ndarray:
        """All probes times x (n, m): (S, n, m), factor by factor."""
        sizes = [p.shape[-1] for p in self.probes]
        out = np.broadcast_to(x, (len(self.probes[0]), *x.shape))
        for i, p in enumerate(self.probes):
            before, after = int(np.prod(sizes[:i])), int(np.prod(sizes[i + 1 :])) * x.shape[1]
            out = np.matmul(p[:, None], out.reshape(len(p), before, sizes[i], after))
        return out.reshape(-1, *x.shape)


def summed_error(*images: Images) -> float | None:
    """The error of what is linear in each of these images."""
    known = [i.error for i in images if i.error is not None]
    return sum(known) if known else None


def kron(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kronecker product of matrices, batch by batch."""
    out = a[..., :, None, :, None] * b[..., None, :, None, :]
    return out.reshape(*out.shape[:-4], a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1])


def _nearest_unitary(m: np.ndarray) -> np.ndarray:
    u, _, vh = np.linalg.svd(m)
    return u @ vh


def _block_diagonal(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """(S, n_i, n_i) -> (S, Σn_i, Σn_i)."""
    n, at = sum(m.shape[-1] for m in matrices), 0
    out = np.zeros((len(matrices[0]), n, n), np.result_type(*matrices))
    for m in matrices:
        out[:, at : at + m.shape[-1], at : at + m.shape[-1]] = m
        at += m.shape[-1]
    return out


def _derived(operation: str, *digests: str) -> str:
    return hashlib.sha256("|".join((operation, *digests)).encode()).hexdigest()


def _inverse(m: np.ndarray) -> np.ndarray:
    return np.linalg.inv(m) if len(m) else m
