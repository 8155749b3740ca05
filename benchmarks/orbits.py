"""The quotient ELU: its error of equivariance by the number of points, and its time beside that of the gate.

    python benchmarks/orbits.py --points 20 40 80 160 320 --channels 8 --nodes 1024
"""

from __future__ import annotations

import argparse
import time

import torch

import emkernel as ek


def seconds(layer: torch.nn.Module, x: torch.Tensor, repeat: int = 5) -> float:
    """The least of a few, forward and backward."""
    found = []
    for _ in range(repeat + 1):
        x = x.detach().requires_grad_()
        start = time.perf_counter()
        layer(x).square().sum().backward()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[20, 40, 80, 160, 320])
    parser.add_argument("--channels", type=int, default=8, help="copies of each irreducible")
    parser.add_argument("--nodes", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    groups = ek.groups
    cases = [  # name, group, subgroup, powers of V whose irreducibles are taken
        ("SO(2)", groups.SO(2), None, 1),
        ("O(3) on the sphere", groups.O(3), groups.O2z(), 1),
        ("SO(3) on the sphere", groups.SO(3), groups.SO2z(), 2),
        ("SO(3)", groups.SO(3), None, 2),
        ("SU(2)", groups.SU(2), None, 1),
        ("Oh", groups.Oh(), None, 1),
    ]
    print(f"{args.channels} copies of each irreducible, {args.nodes} nodes, {args.threads} threads")
    print(f"{'functions on':22}{'points':>8}{'error':>10}{'ms':>8}{'of the gate':>13}")
    for name, G, below, degree in cases:
        rep = sum((args.channels * r for r in ek.irreps(G, degree)[1:]), args.channels * ek.Scalar(G))
        x = torch.randn(args.nodes, rep.size, generator=torch.Generator().manual_seed(0))
        gate = seconds(ek.nn.Gate(rep), x)
        for points in args.points:
            try:
                layer = ek.nn.OrbitELU(rep, subgroup=below, samples=points)
            except ValueError as e:
                print(f"{name:22}{points:>8}  {e}")
                continue
            error, spent = layer.double().error(), seconds(layer.float(), x)
            kind = "all" if layer.is_exact else ""
            print(f"{name:22}{layer.points:>8}{error:>10.1e}{1e3 * spent:>8.2f}{spent / gate:>12.1f}x {kind}")
            if layer.is_exact:
                break


if __name__ == "__main__":
    main()
