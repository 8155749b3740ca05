"""The matrices of a representation, which is all that the solver knows of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial, reduce

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
        find_probes: what computes the probes; they are needed for solving only, not for reading what was solved.
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
    find_probes: Callable[[], tuple[np.ndarray, ...]] = tuple
    permuted: tuple[np.ndarray, np.ndarray] | None = None
    error: float | None = None

    @cached_property
    def probes(self) -> tuple[np.ndarray, ...]:
        """Unitary matrices of elements of the compact dual, real for a compact group, as Kronecker factors
        ((S, n_1, n_1), (S, n_2, n_2), ...), Π n_i = n; none when the group is not known to be reductive, or the images
        not to be orthogonal or closed under transpose with it."""
        return self.find_probes()

    def __getstate__(self):
        # what computes them cannot be pickled
        return vars(self) | {"find_probes": partial(tuple, self.probes)}

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
        finds = [p.find_probes for p in parts]

        @cache
        def probes():
            found = [find() for find in finds]
            return (_block_diagonal([reduce(kron, f) for f in found]),) if all(found) else ()

        discrete, lie, held_out = (_block_diagonal(matrices) for matrices in zip(*kinds))
        error = max((p.error for p in parts if p.error is not None), default=None)
        return cls(discrete, lie, held_out, _derived("sum", *(p.digest for p in parts)), probes, error=error)

    @property
    def size(self) -> int:
        return self.discrete.shape[-1]

    @cached_property
    def traces(self) -> np.ndarray:
        """The traces of all matrices: equal for equivalent representations."""
        return np.concatenate([np.trace(m, axis1=1, axis2=2) for m in (self.discrete, self.lie, self.held_out)])

    @cached_property
    def elements(self) -> np.ndarray:
        """(M + P, n, n) the images of discrete generators and of held-out elements."""
        return np.concatenate([self.discrete, self.held_out])

    @cached_property
    def sizes(self) -> np.ndarray:
        """(M + P,) the largest entry of each of the elements."""
        return np.abs(self.elements).max((1, 2), initial=0)

    @cached_property
    def sampled(self) -> np.ndarray:
        """(2, 1 + M + P + D, n) two random vectors, each followed by its images under elements and Lie algebra."""
        x = np.random.default_rng(0).standard_normal((2, self.size, 1))
        moved = (np.moveaxis(m[:, None] @ x, 0, 1)[..., 0] for m in (self.elements, self.lie))
        return np.concatenate([x[:, None, :, 0], *moved], 1)

    def dual(self) -> Images:
        """ρ*(h) = ρ(h)^-T, dρ*(A) = -dρ(A)^T."""
        find = self.find_probes
        return Images(
            _inverse(self.discrete).transpose(0, 2, 1),
            -self.lie.transpose(0, 2, 1),
            _inverse(self.held_out).transpose(0, 2, 1),
            _derived("dual", self.digest),
            lambda: tuple(p.conj() for p in find()),
            self.permuted,
            self.error and self.error * max((float(np.linalg.cond(h)) for h in self.discrete), default=1.0),
        )

    def tensor(self, other: Images) -> Images:
        """ρ_a ⊗ ρ_b on group elements, dρ_a ⊗ 1 + 1 ⊗ dρ_b on the algebra."""
        return Product(self, other)

    def conjugate(self, to: np.ndarray, back: np.ndarray, name: str) -> Images:
        """to ρ back, e.g. the restriction to a subspace when the rows of ``to`` span it and ``to back = 1``.

        The probes go along where ``back`` is the transpose of ``to``.
        """
        orthogonal = np.abs(to.T - back).max(initial=0) < 1e-9
        return self._conjugate([to @ m for m in self.times(back)], to, back, name, orthogonal)

    def restricted(self, Q: np.ndarray, name: str) -> tuple[Images, float]:
        """ρ on the span of orthonormal columns Q (n, m), and how far from invariant that is: |ρ Q x - Q Q^T ρ Q x| for
        two random x."""
        x = np.random.default_rng(0).standard_normal((Q.shape[1], 2))
        moved = self.times(Q)
        inside = [Q.T @ m for m in moved]
        defect = 0.0
        for m, k in zip(moved, inside):
            rest = np.abs(m @ x - Q @ (k @ x)).max((1, 2), initial=0)
            defect = max(defect, float((rest / np.maximum(1.0, np.abs(m).max((1, 2), initial=0))).max(initial=0)))
        return self._conjugate(inside, Q.T, Q, name, True), defect

    def _conjugate(
        self, matrices: Sequence[np.ndarray], to: np.ndarray, back: np.ndarray, name: str, orthogonal: bool
    ) -> Images:
        find = self.find_probes

        @cache
        def probes():
            found = find()
            return (to @ _times(found, back),) if found else ()

        discrete, lie, held_out = matrices
        return Images(
            discrete,
            lie,
            held_out,
            _derived(name, self.digest),
            probes if orthogonal else tuple,
            (self.permuted[0], self.permuted[1] @ back) if self.permuted and orthogonal else None,
            self.error and self.error * float(np.linalg.norm(to, 2) * np.linalg.norm(back, 2)),
        )

    def times(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The matrices on discrete generators, Lie algebra and held-out elements, each times x (n, m)."""
        return self.discrete @ x, self.lie @ x, self.held_out @ x

    def with_unitary_probes(self) -> Images:
        """The same with rounding that has gathered in the probes removed."""
        find = self.find_probes
        unitary = cache(lambda: tuple(_nearest_unitary(p) for p in find()))
        return Images(self.discrete, self.lie, self.held_out, self.digest, unitary, self.permuted, self.error)


class Product(Images):
    """ρ_a ⊗ ρ_b, whose matrices are formed when they are asked for: what acts on few vectors does without."""

    _a: Images
    _b: Images

    def __init__(self, a: Images, b: Images):
        def probes():
            return (*a.probes, *b.probes) if a.probes and b.probes else ()

        vars(self).update(
            _a=a,
            _b=b,
            digest=_derived("tensor", a.digest, b.digest),
            find_probes=probes,
            permuted=_pairs_of_points(a.permuted, b.permuted),
            error=summed_error(a, b),
        )

    @property
    def size(self) -> int:
        return self._a.size * self._b.size

    @cached_property
    def discrete(self) -> np.ndarray:
        return kron(self._a.discrete, self._b.discrete)

    @cached_property
    def lie(self) -> np.ndarray:
        one, two = np.eye(self._a.size)[None], np.eye(self._b.size)[None]
        return kron(self._a.lie, two) + kron(one, self._b.lie)

    @cached_property
    def held_out(self) -> np.ndarray:
        return kron(self._a.held_out, self._b.held_out)

    def times(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b, m = self._a, self._b, x.shape[1]
        right = x.reshape(a.size, b.size, m)
        left = x.reshape(a.size, b.size * m)
        algebra = (b.lie[:, None] @ right).reshape(-1, *left.shape) + a.lie @ left
        discrete, held_out = (p @ (q[:, None] @ right).reshape(-1, *left.shape)
                              for p, q in ((a.discrete, b.discrete), (a.held_out, b.held_out)))
        return discrete.reshape(-1, *x.shape), algebra.reshape(-1, *x.shape), held_out.reshape(-1, *x.shape)


def _pairs_of_points(first, second) -> tuple[np.ndarray, np.ndarray] | None:
    if first is None or second is None:
        return None
    (p, F), (q, H) = first, second
    if F.shape[0] * H.shape[0] > MOST_POINTS:
        return None
    return (p[:, :, None] * q.shape[1] + q[:, None, :]).reshape(len(p), -1), np.kron(F, H)


def _times(factors: tuple[np.ndarray, ...], x: np.ndarray) -> np.ndarray:
    """Matrices given by Kronecker factors times x (n, m): (S, n, m), factor by factor."""
    sizes = [f.shape[-1] for f in factors]
    out = np.broadcast_to(x, (len(factors[0]), *x.shape))
    for i, f in enumerate(factors):
        before, after = int(np.prod(sizes[:i])), int(np.prod(sizes[i + 1 :])) * x.shape[1]
        out = np.matmul(f[:, None], out.reshape(len(f), before, sizes[i], after))
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
