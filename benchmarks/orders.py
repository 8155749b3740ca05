"""The contraction order that the cost model chooses, against the orders themselves.

For some groups, channels, spins and degrees: forward and backward of a PointConv in each order and in "auto", in turn,
the fastest of several rounds of each; "auto" is to be within 20 % of the better one.

    python benchmarks/orders.py [--threads 1] [--points 512] [--rounds 5]
"""

import argparse
import time

import torch

import emkernel as ek
from emkernel.models import harmonic_rep

ORDERS = ("aggregate", "message", "auto")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("threads", 1), ("points", 512), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # with one thread the time of the processor, which other jobs change least
    clock = time.process_time if args.threads == 1 else time.perf_counter
    heads = "".join(f"{order + ', ms':>15}" for order in ORDERS)
    print(f"{'group':>8} {'spin':>4} {'channels':>8} {'k':>3}{heads}  auto / best")
    worst = 0.0
    for name in ("O(3)", "O2z", "Octa"):
        group = ek.groups.get(name)
        for spin in (1, 2):
            for channels in (4, 16, 64):
                for k in (3, 12, 40):
                    times = measure(group, spin, channels, k, args, clock)
                    ratio = times["auto"] / min(times["aggregate"], times["message"])
                    worst = max(worst, ratio)
                    print(
                        f"{name:>8} {spin:4} {channels:8} {k:3}"
                        + "".join(f"{1e3 * times[o]:15.2f}" for o in ORDERS)
                        + f"  {ratio:11.2f}",
                        flush=True,
                    )
    print(f"worst: {worst:.2f}")


def measure(group, spin, channels, k, args, clock) -> dict[str, float]:
    """Seconds of forward and backward by order."""
    generator = torch.Generator().manual_seed(0)
    rep = harmonic_rep(group, channels, spin)
    pos = torch.randn(args.points, 3, generator=generator)
    graph = ek.Neighbours.of(ek.knn_graph(pos, k), args.points)
    x = torch.randn(args.points, rep.size, generator=generator, requires_grad=True)
    convs = {o: ek.nn.PointConv(rep, rep, cutoff=2.0, degree=spin, contraction=o) for o in ORDERS}
    best = dict.fromkeys(ORDERS, float("inf"))
    for i in range(args.rounds + 1):
        for order, conv in convs.items():
            start = clock()
            conv(x, pos, graph).square().sum().backward()
            if i:  # the first is warming up
                best[order] = min(best[order], clock() - start)
    return best


if __name__ == "__main__":
    main()
