"""The matrices of a representation, which is all that the solver knows of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

__all__ = ["Images", "kron"]


@dataclass(frozen=True, eq=False)
class Images:
    """The matrices of a representation: on the generators, and on group elements held out from solving.

    Attributes:
        discrete: (M, n, n) images of the discrete generators.
        lie: (D, n, n) images of the Lie algebra generators.
        held_out: (P, n, n) images of further group elements, on which solutions are verified.
        digest: what the matrices are computed from: the bytes the user gave, and the operations since. Unlike the
            bytes of a computed matrix it is the same in every process.
    """

    discrete: np.ndarray
    lie: np.ndarray
    held_out: np.ndarray
    digest: str

    @classmethod
    def of_content(cls, discrete: np.ndarray, lie: np.ndarray, held_out: np.ndarray | None = None) -> Images:
        """Images identified by their bytes."""
        h = hashlib.sha256(str((discrete.shape, lie.shape)).encode())
        h.update((np.ascontiguousarray(discrete) + 0.0).tobytes())
        h.update((np.ascontiguousarray(lie) + 0.0).tobytes())
        n = discrete.shape[-1]
        return cls(discrete, lie, np.zeros((0, n, n)) if held_out is None else held_out, h.hexdigest())

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
        )

    def tensor(self, other: Images) -> Images:
        """ρ_a ⊗ ρ_b on group elements, dρ_a ⊗ 1 + 1 ⊗ dρ_b on the algebra."""
        one, two = np.eye(self.size)[None], np.eye(other.size)[None]
        return Images(
            kron(self.discrete, other.discrete),
            kron(self.lie, two) + kron(one, other.lie),
            kron(self.held_out, other.held_out),
            _derived("tensor", self.digest, other.digest),
        )

    def conjugate(self, to: np.ndarray, back: np.ndarray, name: str) -> Images:
        """to ρ back, e.g. the restriction to a subspace when the rows of ``to`` span it and ``to back = 1``."""
        return Images(
            to @ self.discrete @ back,
            to @ self.lie @ back,
            to @ self.held_out @ back,
            _derived(name, self.digest),
        )


def kron(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kronecker product of matrices, batch by batch."""
    out = a[..., :, None, :, None] * b[..., None, :, None, :]
    return out.reshape(*out.shape[:-4], a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1])


def _derived(operation: str, *digests: str) -> str:
    return hashlib.sha256("|".join((operation, *digests)).encode()).hexdigest()


def _inverse(m: np.ndarray) -> np.ndarray:
    return np.linalg.inv(m) if len(m) else m
