"""The worst relative equivariance error of a PointConv with invariant and steerable edge attributes, for
every group of the
catalogue, in float64 and float32, on group elements that were not used in solving.

    python benchmarks/catalogue.py [name ...]
"""

import sys
import time

import torch

import emkernel as ek


def main():
    names = sys.argv[1:] or [name for name, make in ek.groups.catalogue().items() if make().d <= 6]
    print(f"{'group':10} {'build':>8} {'float64':>9} {'float32':>9}")
    worst = {torch.float64: 0.0, torch.float32: 0.0}
    for name in names:
        G = ek.groups.get(name)
        rep = (4 * ek.Scalar + 2 * ek.V + ek.V**2)(G) if G.d < 6 else (4 * ek.Scalar + 2 * ek.V)(G)
        edge = (2 * ek.Scalar + ek.V)(G)
        start = time.perf_counter()
        torch.manual_seed(0)
        conv = ek.nn.PointConv(rep, rep, edge, width=4, cutoff=3.0)
        built = time.perf_counter() - start
        row = []
        for dtype in worst:
            conv = conv.to(dtype)
            x, pos, attr = (
                torch.randn(n, k, dtype=dtype) for n, k in ((12, rep.size), (12, G.d), (60, edge.size))
            )
            edges = torch.randint(0, 12, (2, 60))
            error = ek.equivariance_error(
                lambda x, pos, attr, conv=conv, edges=edges: conv(x, pos, edges, attr),
                (x, pos, attr),
                (rep, ek.V(G), edge),
                rep,
                n=8,
            )
            worst[dtype] = max(worst[dtype], error)
            row.append(error)
        print(f"{name:10} {built:6.2f} s {row[0]:9.1e} {row[1]:9.1e}", flush=True)
    print(f"{'worst':10} {'':8} {worst[torch.float64]:9.1e} {worst[torch.float32]:9.1e}")


if __name__ == "__main__":
    main()
