"""The baseline: steerable kernels in a fixed basis, from O(n) by group restriction (Cesa, Lang, Weiler, 2022)."""

from __future__ import annotations

import torch

from .._arguments import whole
from ..errors import RepError
from ..ops.plain import Field
from ..rep import Rep
from ..solver.irreps import irrep_table
from .steerable import SteerableKernel

__all__ = ["FixedKernel"]


class FixedKernel(SteerableKernel):
    """k(x) = Σ_{l r} Σ_abc w_abc^{lr} φ_r(|x|) C_abc Y_l^a(x/|x|): weights of a basis, and no network (paper, eq. 12).

    Y_l are the harmonic polynomials of degree l, an irreducible of O(n), split into the irreducibles a of G <= O(n);
    φ_r are Gaussians on rings of radius 0 to ``cutoff``, as wide as they are apart; C_abc couple a and an irreducible b
    of the input to c of the output. The number of weights is the dimension of what they span,

        rings · Σ_{l <= degree} dim Hom_G(H_l ⊗ ρ_in, ρ_out),      H_l the harmonic polynomials of degree l.

    Args:
        rep_in, rep_out: bound representations of a compact group.
        edge_rep: None; what depends on attributes needs an :class:`ImplicitKernel`.
        degree: highest degree l.
        rings: number of Gaussians.
        cutoff: radius of the outermost ring, in the units of ``pos``.
        envelope: let all rings fall to zero at the cutoff, as for :class:`ImplicitKernel`.

    Shapes:
        edge_vec (E, d) -> (E, rep_out.size, rep_in.size)

    Raises:
        ValueError: rings < 1.
        RepError: edge attributes; a group that is not compact; no polynomial of these degrees couples the fields.

    Example:
        >>> G = groups.Oh()
        >>> k = nn.FixedKernel(V(G), (Scalar + V)(G), degree=3, rings=4, cutoff=2.0)
        >>> k(torch.randn(7, 3)).shape  # (edges, out, in)
        torch.Size([7, 4, 3])
    """

    takes_attributes = False

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        edge_rep: Rep | None = None,
        *,
        degree: int = 2,
        rings: int = 3,
        cutoff: float = 1.0,
        envelope: bool = False,
    ):
        if edge_rep is not None:
            raise RepError(
                f"a fixed basis is one of functions of the edge vector alone, got edge_rep = {edge_rep}: leave the "
                "attributes out, or take the implicit kernel"
            )
        super().__init__(rep_in, rep_out, None)
        group = rep_in.group
        if not group.is_compact:
            raise RepError(
                f"{group.name} is not compact, and so no subgroup of O({group.d}) that would have its basis; "
                "take the implicit kernel"
            )
        self.rings = rings = whole(rings, "rings")
        self._embed(degree, rings, cutoff, envelope)
        trivial = irrep_table(group).trivial
        # the constant, and what the embedding counts among its scalars: invariant polynomials that O(n) does not have
        sources = [(trivial, 1 + self.embed.scalars - rings), *zip(self.embed.irreps, self.embed.copies)]
        self._used = [bool(self.paths(a)) for a, _ in sources]
        sources = [s for s, used in zip(sources, self._used) if used]
        for i, (_, s) in enumerate(sources):
            self.register_buffer(f"_mix{i}", torch.eye(s).repeat_interleave(rings, 1), persistent=False)
        self._require([a for a, _ in sources])
        self._couple([a for a, _ in sources], [s * rings for _, s in sources], [s for _, s in sources])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights that give messages of unit variance, as those of the implicit kernel."""
        # Σ_r φ_r² over many rings is the integral of a Gaussian, (π/2)^(1/2)
        self._reset_last(max(1.0, self.rings / 1.2533))

    def hidden(self, edge_vec: torch.Tensor, edge_attr: torch.Tensor | None = None) -> list[Field]:
        """Y_l^a φ_r, (E, d_a, copies · rings) per irreducible a, as polynomials of ``edge_vec`` and rings that gate
        them; ``edge_attr`` is not seen."""
        scalars, blocks = self.embed(edge_vec, None)
        rings, invariant = scalars[:, : self.rings], scalars[:, self.rings :]
        if self.embed.envelope:
            rings = rings * self.embed.window(edge_vec)
        constant = torch.cat([torch.ones_like(rings[:, :1]), invariant], 1)[:, None]
        used = [y for y, used in zip([constant, *blocks], self._used) if used]
        if self.rings == 1:
            return [Field(y * rings[:, None]) for y in used]
        return [Field(y, getattr(self, f"_mix{i}"), rings.repeat(1, y.shape[2])) for i, y in enumerate(used)]

    def extra_repr(self) -> str:
        return f"{self.rep_in} -> {self.rep_out}, degree={self.embed.degree}, rings={self.rings}"
