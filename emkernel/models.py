"""The reference networks for molecules, shapes, particles and crystals: steerable convolutions, gates, shortcuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import nn

from ._blocks import SteerableBlock, batch_field, choose_attributes, harmonic_rep
from ._crystals import CrystalNet
from ._molecules import MoleculeNet
from .batch import GraphBatch
from .graph import knn_graph, random_subset
from .matrix_group import MatrixGroup
from .nn import InvariantPool, Linear
from .nn._module import EquivariantModule
from .nn.embed import Harmonics
from .ops.neighbours import Neighbours
from .rep import Scalar, V

__all__ = [
    "CrystalNet", "MoleculeNet", "ParticleNet", "ShapeNet", "SteerableBlock", "harmonic_rep", "match_channels",
]  # fmt: skip


def match_channels(build: Callable[[int], nn.Module], target: int | nn.Module, tolerance: float = 0.1) -> int:
    """The number of channels c with which ``build(c)`` has the number of weights nearest to ``target``.

    For comparing architectures of equal size (paper, section 5.1). The weights must not become fewer with c.

    Args:
        build: makes a network of so many channels.
        target: a number of weights, or a network that has it.
        tolerance: largest relative difference.

    Raises:
        ValueError: no number of channels comes so close.

    Example:
        >>> G, net = groups.O2z(), ek.models.ParticleNet
        >>> ek.models.match_channels(lambda c: net(G, channels=c, kernel="fixed"), net(G, channels=4))
        12
    """

    @cache
    def weights(c: int) -> int:
        with torch.random.fork_rng(devices=[]):
            return sum(p.numel() for p in build(c).parameters())

    wanted = sum(p.numel() for p in target.parameters()) if isinstance(target, nn.Module) else target
    low, high = 1, 1
    while weights(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if weights(middle) < wanted else (low, middle)
    best = min((low, high), key=lambda c: abs(weights(c) - wanted))
    if abs(weights(best) - wanted) > tolerance * wanted:
        raise ValueError(
            f"no number of channels has {wanted} weights within {tolerance:.0%}: {low} have {weights(low)}, {high} "
            f"have {weights(high)}; vary another size as well"
        )
    return best


class ShapeNet(EquivariantModule):
    """The class of a point cloud: steerable convolutions with gradual random downsampling and k nearest
    neighbours at each layer, then invariant pooling (paper, section 5.2).

    Args:
        group: a subgroup of O(3).
        classes: number of classes.
        channels: copies of each irreducible after each layer.
        degree: highest irreducible kept, and degree of the kernel's polynomials.
        points: points kept by each layer.
        neighbours: k of each layer, or one number for all (the paper's is 15).
        cutoffs: length scale of the edges of each layer; clouds have unit radius.
        normals: use ``batch.x["normal"]``, through its polynomials of degree 2, blind to its sign.
        invariant: the last layer returns invariants alone, as in the paper; else all irreducibles, of which the pooling
            takes invariants.
        dropout: of the classifier.
        **kernel: further arguments of the layers and their kernels (nonlinearity, kernel, width, hidden, radial, ...).

    Shapes:
        GraphBatch of point clouds -> (num_graphs, classes) logits; ``graphs`` are those of :meth:`graphs`, to be passed
        where the network is compiled, as how many edges there are cannot be known there

    Raises:
        ValueError: lists of different lengths.

    Example:
        >>> sizes = {"channels": (4, 4), "points": (32, 8), "neighbours": (8, 8), "cutoffs": (0.5, 1.0)}
        >>> net = ek.models.ShapeNet(groups.O(3), 10, normals=False, degree=1, **sizes)
        >>> net(ek.GraphBatch(torch.randn(128, 3), torch.arange(2).repeat_interleave(64), 2)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        group: MatrixGroup,
        classes: int,
        *,
        channels: tuple[int, ...] = (12, 16, 32),
        degree: int = 2,
        points: tuple[int, ...] = (256, 64, 24),
        neighbours: int | tuple[int, ...] = (24, 20, 24),
        cutoffs: tuple[float, ...] = (0.35, 0.7, 1.4),
        normals: bool = True,
        invariant: bool = False,
        dropout: float = 0.3,
        **kernel,
    ):
        super().__init__()
        if isinstance(neighbours, int):
            neighbours = (neighbours,) * len(channels)
        if not len(channels) == len(points) == len(neighbours) == len(cutoffs):
            raise ValueError(
                f"channels, points, neighbours and cutoffs describe {len(channels)}, {len(points)}, "
                f"{len(neighbours)} and {len(cutoffs)} layers; expected one entry per layer in each"
            )
        self.group, self.points, self.neighbours = group, tuple(points), tuple(neighbours)
        self.normal = Harmonics(group, (2,)) if normals else None
        rep = Scalar(group) + self.normal.rep if normals else Scalar(group)
        self.blocks = nn.ModuleList()
        for m, k, cutoff in zip(channels, neighbours, cutoffs):
            last = len(self.blocks) == len(channels) - 1
            rep_out = (m * Scalar)(group) if invariant and last else harmonic_rep(group, m, degree)
            implicit = kernel.get("kernel", "implicit") == "implicit"
            sizes = {"width": 6, "hidden": 48, "radial": 12, "spread": 1.0} if implicit else {}
            options = {"degree": max(degree, 1)} | sizes | kernel
            self.blocks.append(
                SteerableBlock(
                    rep,
                    rep_out,
                    shortcut=len(self.blocks) > 0,
                    aggr="sum",
                    neighbours=k,
                    cutoff=cutoff,
                    **options,
                )
            )
            rep = rep_out
        self.pool = InvariantPool(rep)
        self.head = nn.Sequential(
            nn.Linear(self.pool.size, 256),
            nn.BatchNorm1d(256),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(256, classes),
        )

    def graphs(self, batch: GraphBatch) -> list[tuple[torch.Tensor, Neighbours]]:
        """Of each layer the points that it keeps, among those of the layer before, and their neighbours there."""
        pos, index, out = batch.pos, batch.batch, []
        for m, k in zip(self.points, self.neighbours):
            # evaluation keeps the same points every time
            seed = None if self.training else torch.Generator().manual_seed(0)
            keep = random_subset(index, m, generator=seed)
            edges = knn_graph(pos, k, index, query=pos[keep], query_batch=index[keep])
            out.append((keep, Neighbours.of(edges, len(pos), len(keep), ordered=True)))
            pos, index = pos[keep], index[keep]
        return out

    def forward(
        self, batch: GraphBatch, graphs: list[tuple[torch.Tensor, Neighbours]] | None = None
    ) -> torch.Tensor:
        pos, index = batch.pos, batch.batch
        x = pos.new_ones(len(pos), 1)
        if self.normal is not None:
            x = torch.cat([x, self.normal(batch_field(batch, "normal", self.group.d))], 1)
        for block, (keep, graph) in zip(self.blocks, self.graphs(batch) if graphs is None else graphs):
            x = block((x, x[keep]), (pos, pos[keep]), graph)
            pos, index = pos[keep], index[keep]
        return self.head(self.pool(x, index, batch.num_graphs))


class ParticleNet(EquivariantModule):
    """The displacement of each particle from positions, velocities and charges (N-body), with relative velocities, a
    steerable attribute, and charges, an invariant one, in the kernel (paper, section 3.3).

    Args:
        group: a group acting on the positions.
        attributes: what the kernel sees beside the edge vector, of "charges", q_i q_j and q_j, and "velocities",
            v_i - v_j; by default both, and none where kernel="fixed".
        channels, degree, layers: size of the network; degree of the polynomials and highest irreducible kept.
        neighbours: typical number of other particles.
        scale: typical size of the target; the output is multiplied by it.
        **kernel: further arguments of the layers and their kernels (nonlinearity, kernel, width, hidden, ...).

    Shapes:
        GraphBatch with x["vel"] (N, d), x["charge"] (N, 1) -> (N, d)

    Example:
        >>> batch = ek.data.load_nbody(n_train=2, n_val=1, n_test=1)["train"][[0, 1]]
        >>> ek.models.ParticleNet(groups.O2z(), channels=4, layers=1)(batch).shape  # five particles in each
        torch.Size([10, 3])
    """

    def __init__(
        self,
        group: MatrixGroup,
        *,
        attributes: Sequence[str] | None = None,
        channels: int = 16,
        degree: int = 1,
        layers: int = 3,
        neighbours: float = 4.0,
        scale: float = 1.0,
        **kernel,
    ):
        super().__init__()
        self.group = group
        rep = harmonic_rep(group, channels, degree)
        known = {"charges": 2 * Scalar, "velocities": V}
        self.attributes, self.edge_rep = choose_attributes(group, known, attributes, kernel)
        kernel = {"cutoff": 4.0, "degree": max(degree, 1)} | kernel
        self.embed = Linear((Scalar + V)(group), rep)
        self.blocks = nn.ModuleList(
            [
                SteerableBlock(rep, rep, self.edge_rep, norm=False, neighbours=neighbours, **kernel)
                for _ in range(layers)
            ]
        )
        self.out = Linear(rep, V(group))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, batch: GraphBatch) -> torch.Tensor:
        vel, charge, pos = batch_field(batch, "vel", self.group.d), batch_field(batch, "charge", 1), batch.pos
        graph = Neighbours.of(batch.edge_index, len(pos)).sorted
        i, j, attr = graph.target, graph.source, []
        if "charges" in self.attributes:
            attr += [charge[i] * charge[j], charge[j]]
        if "velocities" in self.attributes:
            attr.append(vel[i] - vel[j])
        attr = torch.cat(attr, 1) if attr else None
        x = self.embed(torch.cat([charge, vel], 1))
        for block in self.blocks:
            x = block(x, pos, graph, attr)
        return self.out(x) * self.scale
