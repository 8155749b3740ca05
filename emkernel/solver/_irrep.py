"""One irreducible representation, and a representation as a sum of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..images import Images
from ..rep import GivenRep

TYPES = {1: "real", 2: "complex", 4: "quaternionic"}


@dataclass(frozen=True, eq=False, repr=False)
class Irrep(GivenRep):
    """An irreducible representation, bound to its group (or an unsplit piece where splitting is not certified).

    Attributes:
        label: dimension and a letter in order of discovery, "1a" the trivial one.
        type: "real", "complex" or "quaternionic" for dim End = 1, 2, 4; None for an unsplit piece.
        degree: the first tensor power of V in which it was found.
        index: its place in the table of its group.
        normal: its images in the coordinates that problems are solved in.
        endomorphisms: (e, d, d) basis of End, the identity first, each of Frobenius norm sqrt(d).
        form: (d, d) symmetric invariant form, g^T B g = B, norm sqrt(d); None when there is none.

    Example:
        >>> turning = ek.irreps(groups.C(4), degree=1)[1]
        >>> turning.label, turning.size, turning.type
        ('2a', 2, 'complex')
    """

    label: str = ""
    type: str | None = None
    degree: int = 0
    index: int = 0
    normal: Images = field(default=None)
    endomorphisms: np.ndarray = field(default=None)
    form: np.ndarray | None = None

    @property
    def is_trivial(self) -> bool:
        """Whether every element acts as 1."""
        return self.index == 0

    @cached_property
    def is_orthogonal(self) -> bool:
        """Whether the form is the identity."""
        return self.form is not None and np.array_equal(self.form, np.eye(self.size))

    def __str__(self):
        return self.label


@dataclass(frozen=True)
class Decomposition:
    """A representation as a sum of irreducibles: x = Σ_i Σ_m back_i[m] (to_i[m] x).

    Attributes:
        parts: (irrep, to (m, d_i, n), back (m, n, d_i)) in the order of first appearance.
        orthogonal: whether back is known to be the transpose of to.
    """

    parts: tuple[tuple[Irrep, np.ndarray, np.ndarray], ...]
    orthogonal: bool = False

    @property
    def multiplicities(self) -> dict[str, int]:
        """Copies of each irreducible by label."""
        return {irrep.label: len(to) for irrep, to, _ in self.parts}
