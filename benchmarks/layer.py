"""Forward and backward of one point convolution, kernel network included: each order against the kernel on every edge.

python benchmarks/layer.py [--points 1024] [--neighbours 15] [--channels 16] [--degree 2] [--width 8] [--threads 2]
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

import emkernel as ek
from emkernel.models import harmonic_rep

ORDERS = ("kernel", "aggregate", "message", "auto")


def measure(args, order: str) -> tuple[float, float, float]:
    """(forward, forward and backward) seconds, best of several, and peak resident memory in MB beyond the start."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    rep = harmonic_rep(ek.groups.O(3), args.channels, args.degree)
    conv = ek.nn.PointConv(rep, rep, width=args.width, cutoff=2.0, contraction=order)
    pos = torch.randn(args.points, 3)
    graph = ek.Neighbours.of(ek.knn_graph(pos, args.neighbours), args.points)
    x = torch.randn(args.points, rep.size, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def forward():
        with torch.no_grad():
            conv(x, pos, graph)

    def both():
        conv(x, pos, graph).square().sum().backward()

    def best(f, repeats):
        f()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            f()
            times.append(time.perf_counter() - start)
        return min(times)

    repeats = 2 if order == "kernel" else 8
    times = best(forward, repeats), best(both, repeats)
    return *times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (
        ("points", 1024),
        ("neighbours", 15),
        ("channels", 16),
        ("degree", 2),
        ("width", 8),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--order", choices=ORDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.order:
        print(*measure(args, args.order))
        return
    print(
        f"O(3), {args.channels} channels of spins 0..{args.degree}, {args.points} points, k = {args.neighbours}, "
        f"kernel width {args.width}, {args.threads} threads"
    )
    print(f"{'order':10} {'forward':>10} {'fwd + bwd':>10} {'memory':>9} {'times faster':>13}")
    reference = None
    for order in ORDERS:
        options = [f"--{k}={v}" for k, v in vars(args).items() if k != "order"]
        out = subprocess.run(
            [sys.executable, __file__, *options, f"--order={order}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        forward, both, memory = map(float, out[-3:])
        reference = reference or both
        print(f"{order:10} {forward:8.4f} s {both:8.4f} s {memory:6.0f} MB {reference / both:13.1f}")


if __name__ == "__main__":
    main()
