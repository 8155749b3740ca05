"""Pointwise nonlinearities of functions on a group or one of its quotients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from .._arguments import whole
from ..errors import RepError
from ..matrix_group import MatrixGroup
from ..rep import Rep
from ..restriction import restrict
from ..solver.irreps import Irrep
from ..solver.nullspace import canonical
from ._module import EquivariantModule, check_features, check_rep
from ._sample import LISTED, random_points, whole_orbit
from .layout import Layout

__all__ = ["OrbitELU"]

WHOLE = 1024  # largest orbit that is taken whole unless told otherwise
SPARE = 16  # points for each coefficient of a function, where an orbit is sampled


class OrbitELU(EquivariantModule):
    """Fields as functions on G/H, ELU at each point, and back: quotient ELU (paper, section 5.1; Cesa et al., 2022).

    Copies x_ψ of irreducibles ψ are the Fourier coefficients of a function, with vectors v_ψ that H fixes,

        f(g) = Σ_ψ <ψ(g) v_ψ, x_ψ>,      y = A⁺ ELU(A x),      A_pψ = (ψ(g_p) v_ψ)^T,

    at points g_p of the orbit of (v_ψ); ψ(h) x has the function f(h^-1 g). An irreducible has room for
    dim ψ^H / dim End ψ copies in one function; the copies of a field are dealt out evenly to as few functions as hold
    them all. With the identity in place of ELU the layer is the identity.

    A finite orbit is taken whole, and the layer is exactly equivariant. Any other is sampled: points are drawn from the
    invariant measure of G and spread until they repel each other no more, and equivariance has an error that falls with
    their number and is measured by :meth:`error`. The points belong to the ``state_dict``.

    Args:
        rep: a bound representation of a compact group; the layer maps it to itself.
        subgroup: H, whose generators lie in the group; None for functions on G itself. Large subgroups make small
            orbits: for scalars, vectors, ... of O(3) the rotations and mirrors that keep an axis, with functions on the
            sphere. Every irreducible of ``rep`` must have vectors that H fixes.
        samples: how many points, of orbits that are larger; by default orbits of up to 1,024 points are taken whole,
            and others have 16 points for each coefficient of a function.
        activation: the pointwise function.

    Attributes:
        points: number of points.
        is_exact: whether they are a whole orbit.

    Shapes:
        x (..., rep.size) -> (..., rep.size)

    Raises:
        RepError: the group is not compact; an irreducible without vectors that H fixes; H is no subgroup.
        ValueError: fewer points than coefficients.

    Example:
        >>> axis = groups.O2z()  # rotations about z and mirrors through it
        >>> elu = nn.OrbitELU((8 * Scalar + 8 * V)(groups.O(3)), subgroup=axis, samples=60)
        >>> elu.is_exact, elu.error() < 0.05
        (False, True)
    """

    def __init__(
        self,
        rep: Rep,
        *,
        subgroup: MatrixGroup | None = None,
        samples: int | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] = nn.functional.elu,
    ):
        super().__init__()
        check_rep(rep=rep)
        group = rep.group
        if not group.is_compact:
            raise RepError(
                f"{group.name} is not compact: a function on an orbit without bounds is not known from finitely many "
                "points; use Gate, which is exactly equivariant for every group"
            )
        samples = None if samples is None else whole(samples, "samples")
        self.rep_in = self.rep_out = self.rep = rep
        self.subgroup, self.activation = subgroup, activation
        self.layout = Layout(rep)
        irreps, copies = self.layout.irreps, self.layout.copies
        vectors = [_reference_vectors(irrep, subgroup, seed) for seed, irrep in enumerate(irreps)]
        self.functions = max(-(-m // v.shape[1]) for m, v in zip(copies, vectors))
        # of unit length together, so that fields of unit variance make functions of unit variance
        vectors = [v[:, : -(-m // self.functions)] for m, v in zip(copies, vectors)]
        norm = sum(v.shape[1] for v in vectors) ** 0.5
        vectors = [v / norm for v in vectors]
        self._shapes = [v.shape for v in vectors]
        rows = whole_orbit(group, irreps, vectors) if group.is_finite and group.order <= LISTED else None
        self.is_exact = rows is not None and len(rows) <= (samples or WHOLE)
        if not self.is_exact:
            rows = random_points(group, irreps, vectors, samples or SPARE * sum(v.size for v in vectors))
        self.points, coefficients = rows.shape
        s = np.linalg.svd(rows, compute_uv=False)
        if self.points < coefficients or s[-1] < 1e-3 * s[0]:
            raise ValueError(
                f"{self.points} points do not determine the {coefficients} coefficients of a function on the orbit; "
                f"pass samples={SPARE * coefficients} or so"
            )
        self._constant("sample", rows)
        self._constant("project", np.linalg.pinv(rows))

    def blocks(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The nonlinearity on blocks (N, d, m)."""
        coefficients = []
        for x, (d, k) in zip(xs, self._shapes):
            spare = k * self.functions - x.shape[2]
            x = nn.functional.pad(x, (0, spare)) if spare else x
            coefficients.append(x.reshape(len(x), d * k, self.functions))
        # functions first, so that each way is one matrix product
        values = self.activation(torch.cat(coefficients, 1).transpose(1, 2) @ self.sample.T)
        out = (values @ self.project.T).transpose(1, 2).split([d * k for d, k in self._shapes], 1)
        return [
            y.reshape(len(y), d, k * self.functions)[:, :, :m]
            for y, (d, k), m in zip(out, self._shapes, self.layout.copies)
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_features(x, self.rep, "x", self._like)
        flat = x.reshape(-1, self.rep.size)
        return self.layout.flat(self.blocks(self.layout.blocks(flat))).reshape(x.shape)

    @torch.no_grad()
    def error(self, trials: int = 64, generator: torch.Generator | None = None) -> float:
        """The measured error of equivariance, |φ(g x) - g φ(x)| / |φ(x)|, root mean square over random g and x.

        Args:
            trials: how many pairs of an element and normal fields of unit variance.
            generator: source of randomness; by default the same pairs every time.
        """
        trials = whole(trials, "trials")
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        like = self.sample
        g = self.rep.group.sample(trials, generator)
        actions = [torch.as_tensor(r.rho(g)).to(like) for r in self.layout.irreps]
        xs = [
            torch.randn(trials, r.size, m, generator=generator, dtype=torch.float64).to(like)
            for r, m in zip(self.layout.irreps, self.layout.copies)
        ]
        moved = self.blocks([a @ x for a, x in zip(actions, xs)])
        wanted = [a @ y for a, y in zip(actions, self.blocks(xs))]
        missed = sum(float((a - b).square().sum()) for a, b in zip(moved, wanted))
        return (missed / sum(float(b.square().sum()) for b in wanted)) ** 0.5

    def extra_repr(self) -> str:
        on = "" if self.subgroup is None else f"/{self.subgroup.name}"
        return (
            f"{self.rep}, {self.functions} functions on {self.points} points"
            + ("" if self.is_exact else " sampled")
            + f" of {self.rep.group.name}{on}"
        )


def _reference_vectors(irrep: Irrep, subgroup: MatrixGroup | None, seed: int) -> np.ndarray:
    """(d, q) orthonormal vectors that H fixes, as many as make independent functions; no special ones among them."""
    fixed = np.eye(irrep.size)
    if subgroup is not None:
        images = restrict(irrep, subgroup).images
        moved = np.concatenate([*(images.discrete - np.eye(irrep.size)), *images.lie, np.zeros((1, irrep.size))])
        _, s, vh = np.linalg.svd(moved)
        fixed = canonical(vh[int((s > 1e-7).sum()) :].T)
        if not fixed.shape[1]:
            raise RepError(
                f"the irreducible {irrep.label} of {irrep.group.name} has no vector that {subgroup.name} fixes, so no "
                "function on the quotient holds it; take a smaller subgroup, or None for functions on the group"
            )
    turned = np.linalg.qr(np.random.default_rng(seed).standard_normal((fixed.shape[1], fixed.shape[1])))[0]
    rest, found = fixed @ turned, []
    while rest.shape[1]:
        found.append(rest[:, 0])
        # <ψ(g) E v, x> = <ψ(g) v, E^T x> for an endomorphism E: no other function
        same = np.linalg.qr((irrep.endomorphisms @ found[-1]).T)[0]
        u, s, _ = np.linalg.svd(rest - same @ (same.T @ rest), full_matrices=False)
        rest = u[:, s > 0.5]
    return np.stack(found, 1)
