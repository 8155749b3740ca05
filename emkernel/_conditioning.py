"""What the basis in which a group is written costs in rounding: condition numbers of representations."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np
import torch
from scipy.linalg import block_diag

from ._reports import LOOSEST, TOLERANCE
from .errors import GroupError, RepError, SolverError
from .rep import DualRep, ProductRep, Rep, ScalarRep, SumRep, V, VectorRep
from .solver.irreps import Irrep, irrep_table

__all__ = ["GOOD", "change_of", "condition", "draw", "tolerance"]

GOOD = 1.5  # condition of a basis that is as good as orthogonal


def condition(rep: Rep, solve: bool = True) -> float:
    """Condition number κ >= 1 of the change from the coordinates of a representation to those that layers compute in.

    Those are the coordinates of its irreducibles or, where it does not split, of balanced generators. What a layer
    rounds off is larger by κ in the user's coordinates. Physical units cost no digits, so columns are scaled to norm 1
    first: κ is 1 where only units differ from an orthogonal basis. κ(a ⊗ b) = κ(a) κ(b).

    Args:
        rep: a bound representation.
        solve: whether to split what is not made of V and irreducibles; else its coordinates count as good ones.
    """
    if isinstance(rep, SumRep):
        return max((condition(t, solve) for _, t in rep.parts), default=1.0)
    if isinstance(rep, ProductRep):
        return float(np.prod([condition(f, solve) for f in rep.factors]))
    if isinstance(rep, DualRep):
        return condition(rep.base, solve)
    to = change_of(rep, solve)[0]
    sizes = np.linalg.norm(to, axis=0)
    return float(np.linalg.cond(to / np.where(sizes > 0, sizes, 1))) if to.size else 1.0


def tolerance(dtype: torch.dtype, reps: Iterable[Rep], solve: bool = True) -> float:
    """The relative error allowed to exact maps between representations, at most 1e-2.

    In coordinates where κ = 1 it is 1e-10 in float64, 1e-5 in float32; rounding in the dtype grows with κ. That of the
    generators, eps in float64, is eps κ² in good coordinates (κ here that of V), and eps κ³ at most back in the user's;
    powers of a generator of order q add it up q times.
    """
    reps = list(reps)
    typed, kappa = 0.0, max((condition(r, solve) for r in reps), default=1.0)
    kappa = kappa if kappa > GOOD else 1.0
    for group in {r._require_bound() for r in reps}:
        eps = np.finfo(float).eps
        typed = max(typed, 4 * eps * max((q or 1 for q in group._orders), default=1))
        if kappa > 1:
            typed = max(typed, eps * condition(V(group)) ** 3)
    return max(TOLERANCE[dtype], min(max(kappa * TOLERANCE[dtype], typed), LOOSEST))


def draw(rows: int, rep: Rep, generator: torch.Generator) -> torch.Tensor:
    """Random features (rows, rep.size) of unit variance in the coordinates that layers compute in.

    In the user's, the axis of the largest unit would be all that an error relative to the largest entry shows.
    """
    z = torch.randn(rows, rep.size, generator=generator, dtype=torch.float64)
    out = torch.empty_like(z)
    for n, term, where in rep.slices:
        part = z[:, where].reshape(rows * n, term.size)
        out[:, where] = (part @ torch.tensor(change_of(term)[1]).T).reshape(rows, -1)
    return out


def change_of(rep: Rep, solve: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The change of basis (n, n) to the coordinates that layers compute in, and back; 1 where none are found."""
    if isinstance(rep, DualRep):
        to, back = change_of(rep.base, solve)
        return back.T, to.T
    if isinstance(rep, ProductRep):
        pairs = [change_of(f, solve) for f in rep.factors]
        return reduce(np.kron, [p[0] for p in pairs]), reduce(np.kron, [p[1] for p in pairs])
    if isinstance(rep, SumRep) and rep.size:
        pairs = [change_of(t, solve) for n, t in rep.parts for _ in range(n)]
        return block_diag(*(p[0] for p in pairs)), block_diag(*(p[1] for p in pairs))
    one = np.eye(rep.size)
    if isinstance(rep, (Irrep, ScalarRep)) or not rep.size:
        return one, one
    try:
        if isinstance(rep, VectorRep):
            coordinates = irrep_table(rep._require_bound()).coordinates
            return coordinates.basis, coordinates.inverse
        if not solve:
            return one, one
        parts = irrep_table(rep._require_bound()).decompose(rep).parts
    except (GroupError, RepError, SolverError):
        return one, one  # without coordinates to compute in there is no layer to excuse
    to = np.concatenate([p[1].reshape(-1, rep.size) for p in parts])
    return to, np.concatenate([p[2].transpose(1, 0, 2).reshape(rep.size, -1) for p in parts], 1)
