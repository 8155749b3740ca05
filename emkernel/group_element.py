"""Elements of a matrix group, kept as words in its generators."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
import torch

from . import _compact
from .errors import GroupError

if TYPE_CHECKING:
    from .matrix_group import MatrixGroup

__all__ = ["GroupElement", "numpy_generator"]


def numpy_generator(generator: torch.Generator | np.random.Generator | int | None) -> np.random.Generator:
    """A numpy Generator seeded from whatever source of randomness the caller passed.

    ``None`` draws the seed from torch's default generator, so ``torch.manual_seed`` governs it.
    """
    if isinstance(generator, np.random.Generator):
        return generator
    if isinstance(generator, (int, np.integer)) and generator >= 0:
        return np.random.default_rng(generator)
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator must be a torch.Generator, a numpy Generator or a seed >= 0, got {generator!r:.80}")
    device = "cpu" if generator is None else generator.device
    seed = torch.randint(0, 2**62, (1,), generator=generator, device=device).item()
    return np.random.default_rng(int(seed))


@dataclass(frozen=True, eq=False)
class GroupElement:
    """One group element, or a batch of them, as a word g = Π_s exp(Σ_k c_sk A_k) h_{i_s}^{p_s}.

    The word, not the matrix, is what a representation is evaluated on: ρ(g) is the same word in the images
    ρ(h_i), dρ(A_k), also for a representation that was found numerically.

    Attributes:
        group: the group it belongs to.
        coefs: (*batch, steps, D) coefficients c of the Lie algebra generators.
        index: (*batch, steps) which discrete generator, i.
        power: (*batch, steps) its power p; 0 leaves the step to the exponential alone.

    Example:
        >>> g = groups.Oh().sample(5)
        >>> g.matrix.shape, np.allclose((g[0] @ g[0].inverse).matrix, np.eye(3))
        ((5, 3, 3), True)
    """

    group: MatrixGroup
    coefs: np.ndarray
    index: np.ndarray
    power: np.ndarray

    @cached_property
    def matrix(self) -> np.ndarray:
        """The element(s) in the defining representation, (*batch, d, d) float64."""
        return self.evaluate(self.group.discrete_generators, self.group.lie_algebra)

    def evaluate(self, discrete: np.ndarray, lie: np.ndarray) -> np.ndarray:
        """The word in other images of the generators: discrete (M, s, s), lie (D, s, s) -> (*batch, s, s)."""
        size = discrete.shape[-1] if len(discrete) else lie.shape[-1]
        batch, steps = self.index.shape[:-1], self.index.shape[-1]
        out = np.broadcast_to(np.eye(size), (*batch, size, size)).copy()
        scale = _units(lie)
        balanced = lie * scale / scale[:, None]
        for s in range(steps):
            coefs = self.coefs[..., s, :]
            if len(lie) and np.any(coefs):
                turns = scipy.linalg.expm(np.tensordot(coefs, balanced, 1))
                out = out @ (turns * scale[:, None] / scale)
            if np.any(self.power[..., s]):
                pairs = np.stack([self.index[..., s], self.power[..., s]], -1).reshape(-1, 2)
                unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
                powers = np.stack([np.linalg.matrix_power(discrete[i], p) for i, p in unique])
                out = out @ powers[inverse.reshape(-1)].reshape(*batch, size, size)
        return out

    @property
    def inverse(self) -> GroupElement:
        """g^-1, the word read backwards."""
        zero = np.zeros_like(self.coefs)
        return self._interleave(zero[..., ::-1, :], -self.power[..., ::-1], -self.coefs[..., ::-1, :])

    def _interleave(self, first, power, second) -> GroupElement:
        index = np.repeat(self.index[..., ::-1], 2, axis=-1)
        coefs = np.stack([first, second], -2).reshape(*index.shape, self.coefs.shape[-1])
        powers = np.stack([power, np.zeros_like(power)], -1).reshape(index.shape)
        return GroupElement(self.group, coefs, index, powers)

    def __matmul__(self, other: GroupElement) -> GroupElement:
        if other.group.digest != self.group.digest:
            raise GroupError(f"cannot multiply an element of {self.group.name} by one of {other.group.name}")
        join = [
            np.concatenate(p, axis)
            for *p, axis in (
                (self.coefs, other.coefs, -2),
                (self.index, other.index, -1),
                (self.power, other.power, -1),
            )
        ]
        return GroupElement(self.group, *join)

    def __getitem__(self, i) -> GroupElement:
        if not self.index.shape[:-1]:
            raise IndexError("a single group element cannot be indexed")
        return GroupElement(self.group, self.coefs[i], self.index[i], self.power[i])

    def __len__(self) -> int:
        if not self.index.shape[:-1]:
            raise TypeError("a single group element has no length")
        return self.index.shape[0]

    def __repr__(self) -> str:
        return f"GroupElement({self.group.name}, batch={list(self.index.shape[:-1])})"


def _units(lie: np.ndarray) -> np.ndarray:
    """(s,) powers of two by which coordinates differ in units, where exponentials would lose digits to those."""
    one = np.ones(lie.shape[-1])
    size = np.abs(lie)[lie != 0]
    if not len(size) or not np.isfinite(size).all() or size.max() < 1e3 * size.min():
        return one
    scale = 1 / _compact.units(lie[:0], lie)
    return scale if np.abs(lie * scale / scale[:, None]).max() < 1e-2 * np.abs(lie).max() else one
