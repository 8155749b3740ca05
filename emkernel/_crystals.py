"""The reference network for crystals: a symmetric tensor from a periodic structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ._blocks import SteerableBlock, choose_attributes, harmonic_rep
from .batch import GraphBatch
from .graph import periodic_graph
from .matrix_group import MatrixGroup
from .nn import Linear
from .nn._module import EquivariantModule
from .ops.neighbours import Neighbours
from .ops.segment import segment_reduce
from .rep import Scalar, V

__all__ = ["CrystalNet"]

NOBLE = np.array([0, 2, 10, 18, 36, 54, 86, 118])
ELEMENTS = 118


class CrystalNet(EquivariantModule):
    """A symmetric tensor T in Sym²(V) of a crystal, the mean over its atoms: T -> g T g^T where g turns the crystal.

    What turns the crystal into itself keeps its tensor: the symmetry of the crystal, whose point group G contains, is
    obeyed without being known (Neumann's principle). Positions, edge vectors and the factors of T are in V, so for a
    group that is not orthogonal T has two upper indices, as the tensor that takes covectors to vectors.

    Args:
        group: the group G, acting on R^d.
        radius: atoms and their images closer than this are joined (Å), in the metric that a compact group keeps.
        attributes: what the kernel sees beside the edge vector, of "atoms", learned numbers of the elements of its two
            ends; by default these, and none where kernel="fixed".
        kinds: how many numbers of each element.
        channels, degree, layers: size of the network; degree of the polynomials and highest irreducible kept.
        neighbours: typical number of them.
        shift, scale: T = shift · S^-1 + scale · prediction, with S the invariant form of G, 1 for orthogonal groups,
            and without shift where there is none.
        **kernel: further arguments of the layers and their kernels (nonlinearity, kernel, width, hidden, ...).

    Shapes:
        GraphBatch of crystals, x["z"] their atomic numbers, -> (num_graphs, d, d)

    Example:
        >>> rock_salt = ek.GraphBatch(  # of sodium chloride, in its primitive cell
        ...     torch.tensor([[0.0, 0, 0], [2.82, 0, 0]]), torch.zeros(2).long(), 1,
        ...     x={"z": torch.tensor([11, 17])}, cell=2.82 * (1 - torch.eye(3))[None])
        >>> net = ek.models.CrystalNet(groups.O(3), channels=2, layers=1, radius=4.0)
        >>> tensor = net(rock_salt)[0]
        >>> torch.allclose(tensor, tensor[0, 0] * torch.eye(3), atol=1e-5)  # as the crystal is cubic
        True
    """

    def __init__(
        self,
        group: MatrixGroup,
        *,
        radius: float = 5.0,
        attributes: Sequence[str] | None = None,
        kinds: int = 8,
        channels: int = 16,
        degree: int = 2,
        layers: int = 3,
        neighbours: float = 30.0,
        shift: float = 0.0,
        scale: float = 1.0,
        **kernel,
    ):
        super().__init__()
        self.group, self.radius = group, float(radius)
        rep = harmonic_rep(group, channels, degree)
        self.attributes, self.edge_rep = choose_attributes(group, {"atoms": 2 * kinds * Scalar}, attributes, kernel)
        kernel = {"cutoff": self.radius, "degree": max(degree, 1)} | kernel
        self._constant("elements", _descriptors())
        self.kinds = nn.Linear(self.elements.shape[1], kinds)
        self.embed = Linear((self.elements.shape[1] * Scalar)(group), rep)
        self.blocks = nn.ModuleList(
            [
                SteerableBlock(rep, rep, self.edge_rep, norm=False, neighbours=neighbours, **kernel)
                for _ in range(layers)
            ]
        )
        # made symmetric afterwards: the irreducibles of V ⊗ V come with the package, those of Sym²(V) do not
        self.out = Linear(rep, (V**2)(group))
        form = group.invariant_form if group.is_compact else np.zeros((group.d, group.d))
        self._constant("form", form)
        self._constant("unit", np.linalg.pinv(form))
        self.register_buffer("shift", torch.tensor(float(shift)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        pos, d = batch.pos, self.group.d
        metric = self._exact["form"] if self.group.is_compact else None
        edge_index, vec = periodic_graph(pos, batch.cell, self.radius, batch.batch, metric=metric)
        graph = Neighbours.of(edge_index, len(pos))
        vec, graph = graph.sort(vec), graph.sorted
        element = self.elements[batch.x["z"]]
        attr = None
        if self.attributes:
            kinds = self.kinds(element)
            attr = torch.cat([kinds[graph.source], kinds[graph.target]], 1)
        x = self.embed(element)
        for block in self.blocks:
            x = block(x, pos, graph, attr, edge_vec=vec)
        tensor = segment_reduce(self.out(x), batch.batch, batch.num_graphs, "mean").reshape(-1, d, d)
        return (tensor + tensor.mT) * (self.scale / 2) + self.shift * self.unit


def _descriptors() -> np.ndarray:
    """(119, 7 + 18 + 118) of each atomic number: its period, its group and itself, each as one of its kind."""
    z = np.arange(1, ELEMENTS + 1)
    period = np.searchsorted(NOBLE, z)
    since, until = z - NOBLE[period - 1], NOBLE[period] - z
    # the s block from the left, the others from the right; lanthanides and actinides stand in the third group
    group = np.where((since <= 2) & (z != 2), since, np.maximum(18 - until, 3))
    columns = [np.eye(7)[period - 1], np.eye(18)[group - 1], np.eye(ELEMENTS)]
    return np.concatenate([np.zeros((1, 7 + 18 + ELEMENTS)), np.concatenate(columns, 1)])
