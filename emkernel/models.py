"""The reference networks for molecules, shapes and particles: steerable convolutions, gates, shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from .batch import GraphBatch
from .graph import knn_graph, radius_graph, random_subset
from .matrix_group import MatrixGroup
from .nn import BatchNorm, Gate, InvariantPool, Linear, PointConv
from .nn._module import EquivariantModule, check_rep
from .nn.bilinear import irrep_sum
from .nn.conv import kernel_class
from .nn.embed import Harmonics
from .ops.neighbours import Neighbours
from .ops.segment import segment_reduce
from .rep import Rep, Scalar, V
from .solver.irreps import irrep_table
from .solver.polynomials import polynomials

__all__ = ["MoleculeNet", "ParticleNet", "ShapeNet", "SteerableBlock", "harmonic_rep", "match_channels"]


def harmonic_rep(group: MatrixGroup, channels: int, degree: int) -> Rep:
    """``channels`` copies of the trivial representation and of each irreducible in the polynomials up to ``degree``.

    For O(3) these are scalars, vectors, ... up to spin ``degree`` with their natural parity.

    Args:
        group: the group.
        channels: copies of each.
        degree: of the polynomials.

    Example:
        >>> ek.models.harmonic_rep(groups.O(3), channels=8, degree=2).size  # 8 (1 + 3 + 5)
        72
    """
    table = irrep_table(group)
    found = {0: table.trivial}
    if degree:
        for parts in polynomials(table, degree).parts:
            found |= {irrep.index: irrep for irrep, _ in parts}
    return irrep_sum(group, [(channels, irrep) for irrep in found.values()])


def _attributes(edge_rep: Rep, options: dict) -> Rep | None:
    """The representation of the attributes, if the kernel that the options name sees any."""
    return edge_rep if kernel_class(options.get("kernel", "implicit")).takes_attributes else None


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


class SteerableBlock(EquivariantModule):
    """x -> shortcut(x) + σ(norm(conv(x))), σ a nonlinearity: one residual steerable layer (paper, section 5.1).

    Args:
        rep_in, rep_out: bound representations of the fields.
        edge_rep: representation of the edge attributes, or None.
        norm: batch normalisation before the nonlinearity.
        shortcut: add the input; through an equivariant linear map where the representations differ.
        nonlinearity: makes σ for a representation: :class:`Gate`, or ``partial(OrbitELU, subgroup=H)``.
        **conv: further arguments of :class:`PointConv`.

    Shapes:
        as :class:`PointConv`; with a pair (source, target) of x the shortcut is that of the target.

    Example:
        >>> field = (8 * Scalar + 4 * V)(groups.Oh())
        >>> block = ek.models.SteerableBlock(field, field, cutoff=2.0)
        >>> x, pos = torch.randn(50, 20), torch.randn(50, 3)
        >>> block(x, pos, ek.knn_graph(pos, 8)).shape
        torch.Size([50, 20])
    """

    def __init__(
        self,
        rep_in: Rep,
        rep_out: Rep,
        edge_rep: Rep | None = None,
        *,
        norm: bool = True,
        shortcut: bool = True,
        nonlinearity: Callable[[Rep], nn.Module] = Gate,
        **conv,
    ):
        super().__init__()
        check_rep(rep_in=rep_in, rep_out=rep_out, edge_rep=edge_rep)
        self.rep_in, self.rep_out = rep_in, rep_out
        self.conv = PointConv(rep_in, rep_out, edge_rep, **conv)
        self.norm = BatchNorm(rep_out) if norm else None
        self.gate = nonlinearity(rep_out)
        self.shortcut = None
        if shortcut:
            self.shortcut = nn.Identity() if rep_in == rep_out else Linear(rep_in, rep_out, bias=False)

    def forward(self, x, pos, edge_index, edge_attr=None, size=None) -> torch.Tensor:
        y = self.conv(x, pos, edge_index, edge_attr, size)
        blocks = self.gate.layout.blocks(y)
        if self.norm is not None:
            blocks = self.norm.blocks(blocks)
        y = self.gate.layout.flat(self.gate.blocks(blocks))
        target = x[1] if isinstance(x, (tuple, list)) else x
        return y if self.shortcut is None or target is None else y + self.shortcut(target)


class MoleculeNet(EquivariantModule):
    """A property of a molecule from its atoms, with bond and atom types in the kernel (paper, section 5.3).

    Args:
        group: a subgroup of O(3).
        target: "dipole" reads off |Σ_i q_i x_i + v_i| with charges q of sum zero and atomic vectors v, the
            magnitude of the dipole moment in debye (q in D/Å, v in D); "sum" and "mean" pool an atomic
            invariant.
        atoms: number of atom classes; ``batch.x["z"]`` holds the class of each atom.
        bonds: number of bond classes in ``batch.edge_attr["bond"]``.
        radius: join atoms closer than this (Å) instead of bonded ones; bonded pairs keep their class.
        channels, degree, layers: size of the network; degree of the polynomials and highest irreducible kept.
        neighbours: typical number of joined atoms; by default 2, or 12 with a radius.
        shift, scale: a typical value of the property and its spread: the output is scale · y + shift.
        **kernel: further arguments of the layers and their kernels (nonlinearity, kernel, width, hidden, ...); with
            kernel="fixed", which sees no attributes, bond and atom types are not in the kernel.

    Shapes:
        GraphBatch of molecules -> (num_graphs,)

    Raises:
        ValueError: an unknown target.

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
        channels: int = 32,
        degree: int = 1,
        layers: int = 4,
        neighbours: float | None = None,
        shift: float = 0.0,
        scale: float = 1.0,
        **kernel,
    ):
        super().__init__()
        if target not in ("dipole", "sum", "mean"):
            raise ValueError(f"target must be 'dipole', 'sum' or 'mean', got {target!r}")
        self.group, self.target, self.atoms, self.bonds, self.radius = group, target, atoms, bonds, radius
        rep = harmonic_rep(group, channels, degree)
        self.edge_rep = _attributes(((bonds + 2 * atoms) * Scalar)(group), kernel)
        kernel = {"cutoff": radius or 2.0, "degree": max(degree, 1)} | kernel
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
            Linear((channels * Scalar)(group), Scalar(group)),
        )
        self.vector = Linear(rep, V(group)) if target == "dipole" else None
        self.register_buffer("shift", torch.tensor(float(shift)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def graph(self, batch: GraphBatch) -> tuple[Neighbours, torch.Tensor]:
        """The neighbours, and the bond class of each of their edges (0 where the atoms are not bonded)."""
        n = len(batch.pos)
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
        z, pos = batch.x["z"], batch.pos
        graph, bond = self.graph(batch)
        one_hot = nn.functional.one_hot
        types, attr = one_hot(z, self.atoms).to(pos.dtype), None
        if self.edge_rep is not None:
            bond = one_hot(bond, self.bonds).to(pos.dtype)
            attr = torch.cat([bond, types[graph.source], types[graph.target]], 1)
        x = self.embed(types)
        for block in self.blocks:
            x = block(x, pos, graph, attr)
        q = self.head(x)
        if self.target != "dipole":
            return (
                segment_reduce(q, batch.batch, batch.num_graphs, self.target)[:, 0] * self.scale + self.shift
            )
        q = q - segment_reduce(q, batch.batch, batch.num_graphs, "mean")[batch.batch]
        moment = segment_reduce(q * pos + self.vector(x), batch.batch, batch.num_graphs, "sum")
        return torch.linalg.vector_norm(moment, dim=1) * self.scale


class ShapeNet(EquivariantModule):
    """The class of a point cloud: steerable convolutions with gradual random downsampling and k nearest
    neighbours at each layer, then invariant pooling (paper, section 5.2).

    Args:
        group: a subgroup of O(3).
        classes: number of classes.
        channels: copies of each irreducible after each layer.
        degree: highest irreducible kept, and degree of the kernel's polynomials.
        points: points kept by each layer.
        neighbours: k of each layer.
        cutoffs: length scale of the edges of each layer; clouds have unit radius.
        normals: use ``batch.x["normal"]``, through its polynomials of degree 2, blind to its sign.
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
        neighbours: tuple[int, ...] = (24, 20, 24),
        cutoffs: tuple[float, ...] = (0.35, 0.7, 1.4),
        normals: bool = True,
        dropout: float = 0.3,
        **kernel,
    ):
        super().__init__()
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
            rep_out = harmonic_rep(group, m, degree)
            sizes = {"width": 6, "hidden": 48, "radial": 12} if kernel.get("kernel", "implicit") == "implicit" else {}
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
            out.append((keep, Neighbours.of(edges, len(pos), len(keep))))
            pos, index = pos[keep], index[keep]
        return out

    def forward(
        self, batch: GraphBatch, graphs: list[tuple[torch.Tensor, Neighbours]] | None = None
    ) -> torch.Tensor:
        pos, index = batch.pos, batch.batch
        x = pos.new_ones(len(pos), 1)
        if self.normal is not None:
            x = torch.cat([x, self.normal(batch.x["normal"])], 1)
        for block, (keep, graph) in zip(self.blocks, self.graphs(batch) if graphs is None else graphs):
            x = block((x, x[keep]), (pos, pos[keep]), graph)
            pos, index = pos[keep], index[keep]
        return self.head(self.pool(x, index, batch.num_graphs))


class ParticleNet(EquivariantModule):
    """The displacement of each particle from positions, velocities and charges (N-body), with the relative velocity, a
    steerable attribute, and the charges in the kernel (paper, section 3.3).

    Args:
        group: a group acting on the positions.
        channels, degree, layers: size of the network; degree of the polynomials and highest irreducible kept.
        neighbours: typical number of other particles.
        scale: typical size of the target; the output is multiplied by it.
        **kernel: further arguments of the layers and their kernels (nonlinearity, kernel, width, hidden, ...); with
            kernel="fixed", which sees no attributes, velocities and charges are not in the kernel.

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
        self.edge_rep = _attributes((2 * Scalar + V)(group), kernel)
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
        pos, vel, charge = batch.pos, batch.x["vel"], batch.x["charge"]
        graph = Neighbours.of(batch.edge_index, len(pos)).sorted
        i, j, attr = graph.target, graph.source, None
        if self.edge_rep is not None:
            attr = torch.cat([charge[i] * charge[j], charge[j], vel[i] - vel[j]], 1)
        x = self.embed(torch.cat([charge, vel], 1))
        for block in self.blocks:
            x = block(x, pos, graph, attr)
        return self.out(x) * self.scale
