"""What half precision costs: errors of equivariance under autocast, and of the output against float64, of one
convolution and of three with gates between them, for O(3) with 16 copies of spins 0 to 2.

    python benchmarks/precision.py [--points 512]
"""

import argparse
import copy

import torch

import emkernel as ek
from emkernel import Scalar, V


class Network(torch.nn.Module):
    """Convolutions with gates between them, on one graph."""

    def __init__(self, rep, layers):
        super().__init__()
        options = {"cutoff": 1.0, "neighbours": 15}
        self.convs = torch.nn.ModuleList([ek.nn.PointConv(rep, rep, **options) for _ in range(layers)])
        self.gates = torch.nn.ModuleList([ek.nn.Gate(rep) for _ in range(layers - 1)])

    def forward(self, x, pos, graph):
        for conv, gate in zip(self.convs, self.gates):
            x = gate(conv(x, pos, graph))
        return self.convs[-1](x, pos, graph)


@torch.no_grad()
def errors(network, dtype, x, pos, graph, group, rep):
    """(equivariance, output against float64), relative to the largest output; the group acts in float64."""
    exact = copy.deepcopy(network).double()(x, pos, graph)
    weights = torch.float64 if dtype == torch.float64 else torch.float32
    network = copy.deepcopy(network).to(weights)

    def run(x, pos):
        with torch.autocast("cpu", dtype, enabled=dtype in (torch.bfloat16, torch.float16)):
            return network(x.to(weights), pos.to(weights), graph).double()

    y, worst = run(x, pos), 0.0
    for g in group.sample(10, 0):
        D, R = torch.as_tensor(rep.rho(g)), torch.as_tensor(g.matrix)
        worst = max(worst, float((run(x @ D.T, pos @ R.T) - y @ D.T).abs().max() / y.abs().max()))
    return worst, float((y - exact).abs().max() / exact.abs().max())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=512)
    args = parser.parse_args()
    group = ek.groups.O(3)
    rep = (16 * Scalar + 16 * V)(group) + 16 * ek.traceless(V(group), 2)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(args.points, rep.size, generator=rng, dtype=torch.float64)
    pos = torch.randn(args.points, 3, generator=rng, dtype=torch.float64)
    graph = ek.Neighbours.of(ek.knn_graph(pos, 15), args.points)
    print(f"{'layers':>6} {'precision':>16} {'equivariance':>13} {'output':>9}")
    for layers in (1, 3):
        torch.manual_seed(0)
        network = Network(rep, layers)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            found = errors(network, dtype, x, pos, graph, group, rep)
            name = str(dtype).removeprefix("torch.")
            print(f"{layers:6} {name:>16} {found[0]:13.1e} {found[1]:9.1e}", flush=True)


if __name__ == "__main__":
    main()
