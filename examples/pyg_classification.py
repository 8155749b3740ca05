"""From PyTorch Geometric's classification of point clouds to a steerable one: one import, one layer.

The first network is that of PyTorch Geometric's tutorial on point clouds (PointNet++ without sampling, Qi et al. 2017),
the second the same with steerable convolutions. Both learn upright shapes and are asked about upright and about
randomly turned ones; data, loader and loop are PyTorch Geometric's. Run it, about two minutes on a free core, with

    python examples/pyg_classification.py
"""

import argparse
import difflib
import inspect
import math
import time

import torch
from scipy.spatial.transform import Rotation
from torch.nn import Linear, ReLU, Sequential
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MessagePassing, global_max_pool

import emkernel as ek
from emkernel import Scalar, V

G = ek.groups.O(3)  # or SO(3), or any other group of (3, 3) matrices


class PointNetLayer(MessagePassing):
    """h_i = max_j MLP(h_j, x_j - x_i), the layer of the tutorial."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(aggr="max")
        self.mlp = Sequential(
            Linear(in_channels + 3, out_channels), ReLU(), Linear(out_channels, out_channels)
        )

    def forward(self, h, pos, edge_index):
        return self.propagate(edge_index, h=h, pos=pos)

    def message(self, h_j, pos_j, pos_i):
        return self.mlp(torch.cat([h_j, pos_j - pos_i], 1))


class PointNet(torch.nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.conv1 = PointNetLayer(3, 32)
        self.conv2 = PointNetLayer(32, 32)
        self.act1, self.act2 = ReLU(), ReLU()
        self.classifier = Linear(32, classes)

    def forward(self, pos, batch):
        edge_index = ek.knn_graph(pos, 16, batch)
        h = self.act1(self.conv1(pos, pos, edge_index))
        h = self.act2(self.conv2(h, pos, edge_index))
        return self.classifier(global_max_pool(h, batch))


class SteerablePointNet(torch.nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        rep, options = (16 * Scalar + 8 * V)(G), {"neighbours": 16, "cutoff": 0.7}
        self.conv1 = ek.nn.PointConv(Scalar(G), rep, **options)
        self.conv2 = ek.nn.PointConv(rep, rep, **options)
        self.act1, self.act2, self.norms = ek.nn.Gate(rep), ek.nn.Gate(rep), ek.nn.Invariants(rep)
        self.classifier = Linear(self.norms.size, classes)

    def forward(self, pos, batch):
        edge_index = ek.knn_graph(pos, 16, batch)
        h = self.act1(self.conv1(torch.ones(len(pos), 1), pos, edge_index))
        h = self.act2(self.conv2(h, pos, edge_index))
        return self.classifier(global_max_pool(self.norms(h), batch))


def sphere(u, v, w):
    z, angle = 2 * u - 1, 2 * math.pi * v
    r = (1 - z**2).sqrt()
    return r * angle.cos(), r * angle.sin(), z


def cube(u, v, w):
    a, b, face = 2 * u - 1, 2 * v - 1, (6 * w).long()
    points = torch.stack([a, b, 1.0 - 2 * (face % 2)], 1)
    return torch.stack([p.roll(int(f) // 2) for p, f in zip(points, face)]).unbind(1)


def cylinder(u, v, w):
    return (2 * math.pi * u).cos(), (2 * math.pi * u).sin(), 2 * v - 1


def cone(u, v, w):
    r = v.sqrt()
    return r * (2 * math.pi * u).cos(), r * (2 * math.pi * u).sin(), 2 * (1 - r)


def torus(u, v, w):
    r = 1 + 0.4 * (2 * math.pi * v).cos()
    return r * (2 * math.pi * u).cos(), r * (2 * math.pi * u).sin(), 0.4 * (2 * math.pi * v).sin()


def helix(u, v, w):
    return (4 * math.pi * u).cos(), (4 * math.pi * u).sin(), 3 * u


def saddle(u, v, w):
    a, b = 2 * u - 1, 2 * v - 1
    return a, b, a**2 - b**2


def plane(u, v, w):
    return 2 * u - 1, 2 * v - 1, 0 * u


SHAPES = [sphere, cube, cylinder, cone, torus, helix, saddle, plane]


def clouds(n: int, points: int, seed: int) -> list[Data]:
    """n upright shapes of unit size: stretched along z by up to a fifth, with noise."""
    rng = torch.Generator().manual_seed(seed)
    out = []
    for i in range(n):
        pos = torch.stack(SHAPES[i % len(SHAPES)](*torch.rand(3, points, generator=rng)), 1)
        pos[:, 2] *= 0.8 + 0.4 * torch.rand((), generator=rng)
        pos = pos + 0.02 * torch.randn(pos.shape, generator=rng)
        pos = pos - pos.mean(0)
        out.append(Data(pos=pos / pos.norm(dim=1).max(), y=i % len(SHAPES)))
    return out


def turned(data: list[Data], seed: int) -> list[Data]:
    """Each cloud turned by a random rotation of its own."""
    turns = torch.tensor(Rotation.random(len(data), rng=seed).as_matrix(), dtype=torch.float32)
    return [Data(pos=d.pos @ R.T, y=d.y) for d, R in zip(data, turns)]


def train(network: torch.nn.Module, data: list[Data], epochs: int) -> None:
    """The loop of the tutorial."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    loader = DataLoader(data, batch_size=16, shuffle=True)
    for _ in range(epochs):
        for batch in loader:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(batch.pos, batch.batch), batch.y).backward()
            optimiser.step()


@torch.no_grad()
def accuracy(network: torch.nn.Module, data: list[Data]) -> float:
    """Part of the clouds that are recognised."""
    right = sum(
        int((network(batch.pos, batch.batch).argmax(1) == batch.y).sum()) for batch in DataLoader(data, 64)
    )
    return right / len(data)


def main() -> None:
    """Show the difference, train both, and turn the test set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and small clouds, for some seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the weights and the order")
    args = parser.parse_args()
    n, points, epochs = (160, 48, 6) if args.quick else (800, 128, 10)

    before, after = (inspect.getsource(c).splitlines() for c in (PointNet, SteerablePointNet))
    print("\n".join(list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]))
    data, test = clouds(n, points, args.seed), clouds(200, points, args.seed + 1)
    print(f"\n{'network':18} {'upright':>8} {'turned':>8} {'parameters':>11} {'seconds':>8}")
    for build in (PointNet, SteerablePointNet):
        torch.manual_seed(args.seed)
        started = time.perf_counter()
        network = build(len(SHAPES))
        train(network, data, epochs)
        network.eval()
        found = accuracy(network, test), accuracy(network, turned(test, args.seed))
        parameters = sum(p.numel() for p in network.parameters())
        print(
            f"{build.__name__:18} {found[0]:8.3f} {found[1]:8.3f} {parameters:11,} "
            f"{time.perf_counter() - started:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
