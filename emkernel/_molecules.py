"""The reference network for molecules: one property from atoms and bonds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ._arguments import whole
from ._blocks import SteerableBlock, batch_field, choose_attributes, harmonic_rep
from .batch import GraphBatch
from .graph import radius_graph
from .matrix_group import MatrixGroup
from .nn import Linear
from .nn._module import EquivariantModule
from .ops.neighbours import Neighbours
from .ops.segment import segment_reduce
from .rep import Scalar, V

__all__ = ["MoleculeNet"]


def _one_hot(classes: torch.Tensor, many: int, name: str, dtype: torch.dtype) -> torch.Tensor:
    """(N,) integers -> (N, many); their range is looked at on the CPU."""
    if classes.dtype != torch.int64:
        raise TypeError(f"{name} has dtype {classes.dtype}, expected the classes as int64")
    if classes.device.type == "cpu" and not torch.compiler.is_compiling() and len(classes):
        low, high = int(classes.min()), int(classes.max())
        if not 0 <= low <= high < many:
            raise ValueError(f"{name} holds classes from {low} to {high}, the network knows 0 to {many - 1}")
    return nn.functional.one_hot(classes, many).to(dtype)


class MoleculeNet(EquivariantModule):
    """A property of a molecule from its atoms, with bond and atom types in the kernel (paper, section 5.3).

    Args:
        group: a subgroup of O(3).
        target: "dipole" reads off (Σ_k |d_k|² / K)^½, d_k = Σ_i q_ik x_i + v_ik with charges q of sum zero and atomic
            vectors v, the magnitude of the dipole moment in debye (q in D/Å, v in D); "extent" Σ_i q_i |x_i - c|², the
            electronic spatial extent, with c the centre of the atoms, each element with a learned weight; "sum" and
            "mean" pool an atomic invariant.
        atoms: number of atom classes; ``batch.x["z"]`` holds the class of each atom.
        bonds: number of bond classes in ``batch.edge_attr["bond"]``.
        radius: join atoms closer than this (Å) instead of bonded ones; bonded pairs keep their class.
        attributes: what the kernel sees beside the edge vector, of "bonds", the class of the bond, and "atoms", those
            of the two atoms (figure 4 of the paper); by default both, and none where kernel="fixed".
        channels, degree, layers: size of the network; degree of the polynomials and highest irreducible kept.
        neighbours: typical number of them; by default 2, with a radius 12.
        dipoles: the number K. With one alone a sign that is learned wrongly for a part of a molecule stays wrong: its
            length, which is right, would have to pass through zero. Of several the part turns at constant length.
        shift, scale: typical value and size of the target: the output is shift + scale · prediction, for "sum" that of
            each atom, with a shift for each element or one for all; a dipole and an extent have no shift.
        **kernel: further arguments of the layers and their kernels (nonlinearity, kernel, width, hidden, ...).

    Shapes:
        GraphBatch of molecules -> (num_graphs,)

    Raises:
        ValueError: an unknown target, or no dipole.

    Example:
        >>> bond = {"bond": torch.tensor([1, 1, 1, 1])}  # water: O, H, H, joined by single bonds
        >>> edges = torch.tensor([[0, 1, 0, 2], [1, 0, 2, 0]])
        >>> pos = torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        >>> water = ek.GraphBatch(
        ...     pos, torch.zeros(3).long(), 1, x={"z": torch.tensor([3, 0, 0])}, edge_index=edges, edge_attr=bond)
        >>> ek.models.MoleculeNet(groups.O(3), channels=4, layers=1)(water).shape
        torch.Size([1])
    """

    def __init__(
        self,
        group: MatrixGroup,
        *,
        target: str = "dipole",
        atoms: int = 5,
        bonds: int = 5,
        radius: float | None = None,
        attributes: Sequence[str] | None = None,
        channels: int = 32,
        degree: int = 1,
        layers: int = 4,
        neighbours: float | None = None,
        dipoles: int = 4,
        shift: float | Sequence[float] = 0.0,
        scale: float = 1.0,
        **kernel,
    ):
        super().__init__()
        if target not in ("dipole", "extent", "sum", "mean"):
            raise ValueError(f"target must be 'dipole', 'extent', 'sum' or 'mean', got {target!r}")
        read = whole(dipoles, "dipoles") if target == "dipole" else 1
        self.group, self.target, self.atoms, self.bonds, self.radius = group, target, atoms, bonds, radius
        rep = harmonic_rep(group, channels, degree)
        known = {"bonds": bonds * Scalar, "atoms": 2 * atoms * Scalar}
        self.attributes, self.edge_rep = choose_attributes(group, known, attributes, kernel)
        # lengths of bonds differ by little and mean much
        start = {"spread": 1.0, "radial": 16} if kernel.get("kernel", "implicit") == "implicit" else {}
        kernel = {"cutoff": radius or 2.0, "degree": max(degree, 1)} | start | kernel
        self.embed = Linear((atoms * Scalar)(group), rep)
        self.blocks = nn.ModuleList(
            [
                SteerableBlock(
                    rep,
                    rep,
                    self.edge_rep,
                    norm=False,
                    neighbours=neighbours or (2.0 if radius is None else 12.0),
                    **kernel,
                )
                for _ in range(layers)
            ]
        )
        self.head = nn.Sequential(
            Linear(rep, (channels * Scalar)(group)),
            nn.SiLU(),
            Linear((channels * Scalar)(group), (read * Scalar)(group)),
        )
        self.vector = Linear(rep, (read * V)(group)) if target == "dipole" else None
        self.weight = nn.Embedding.from_pretrained(torch.zeros(atoms, 1), freeze=False) if target == "extent" else None
        shift = torch.as_tensor(shift, dtype=torch.get_default_dtype())
        self.register_buffer("shift", shift.expand(atoms).clone() if target == "sum" else shift)
        self.register_buffer("scale", torch.tensor(float(scale)))

    def graph(self, batch: GraphBatch) -> tuple[Neighbours, torch.Tensor]:
        """The neighbours, and the bond class of each of their edges (0 where the atoms are not bonded).

        Raises:
            ValueError: the batch has no bonds, or no class for each of them.
        """
        n = len(batch.pos)
        if batch.edge_index is None or batch.edge_attr.get("bond") is None:
            raise ValueError("the batch has no edge_index with edge_attr['bond']: the bonds of the molecules")
        if batch.edge_attr["bond"].shape != batch.edge_index.shape[1:]:
            bond, edges = (tuple(t.shape) for t in (batch.edge_attr["bond"], batch.edge_index))
            raise ValueError(f"edge_attr['bond'] has shape {bond} for an edge_index of {edges}: one class per edge")
        if self.radius is None:
            edges, bond = batch.edge_index, batch.edge_attr["bond"]
        else:
            edges = radius_graph(batch.pos, self.radius, batch.batch)
            keys, bonded = edges[1] * n + edges[0], batch.edge_index[1] * n + batch.edge_index[0]
            order = torch.argsort(bonded)
            at = torch.searchsorted(bonded[order], keys).clamp(max=max(len(bonded) - 1, 0))
            hit = bonded[order][at] == keys
            bond = torch.where(hit, batch.edge_attr["bond"][order][at], 0)
        graph = Neighbours.of(edges, n)
        return graph.sorted, graph.sort(bond)

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        z, pos = batch_field(batch, "z"), batch.pos
        graph, bond = self.graph(batch)
        types, attr = _one_hot(z, self.atoms, "x['z']", pos.dtype), []
        if "bonds" in self.attributes:
            attr.append(_one_hot(bond, self.bonds, "edge_attr['bond']", pos.dtype))
        if "atoms" in self.attributes:
            attr += [types[graph.source], types[graph.target]]
        attr = torch.cat(attr, 1) if attr else None
        x = self.embed(types)
        for block in self.blocks:
            x = block(x, pos, graph, attr)
        q = self.head(x)

        def pool(values: torch.Tensor, how: str = "sum") -> torch.Tensor:
            return segment_reduce(values, batch.batch, batch.num_graphs, how)

        if self.target == "extent":
            w = self.weight(z).exp()
            square = (pos - (pool(w * pos) / pool(w))[batch.batch]).square().sum(1, keepdim=True)
            return pool((1 + q) * square)[:, 0] * self.scale
        if self.target == "sum":
            return pool(q * self.scale + self.shift[z, None])[:, 0]
        if self.target == "mean":
            return pool(q, "mean")[:, 0] * self.scale + self.shift
        q = q - pool(q, "mean")[batch.batch]
        moment = (q[:, :, None] * pos[:, None]).flatten(1) + self.vector(x)
        return torch.linalg.vector_norm(pool(moment), dim=1) * (self.scale / q.shape[1] ** 0.5)
