"""The contraction order that the cost model chooses, against the orders themselves.

For some groups, channels, spins and degrees: forward and backward of a PointConv in each order and in "auto", in turn,
the fastest of several rounds of each; "auto" is to be within 20 % of the better one.

    python benchmarks/orders.py [--threads 1] [--points 512] [--rounds 5]
"""

import argparse
import itertools
import time

import torch
from _measure import add_options, machine, settle
from _results import Table, command

import emkernel as ek
from emkernel.models import harmonic_rep

ORDERS = ("aggregate", "message", "auto")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.set_defaults(threads=1)
    parser.add_argument("--points", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    settle(args)
    # with one thread the time of the processor, which other jobs change least
    clock = time.process_time if args.threads == 1 else time.perf_counter
    columns = [("spin", "spin", "d"), ("channels", "channels", "d"), ("k", "k", "d")]
    columns += [(f"{order}, ms", order, ".2f") for order in ORDERS] + [("auto / best", "ratio", ".2f")]
    table = Table(columns, f"The order that is chosen, on {args.points} points", machine(args))
    spins, widths, degrees = ((1,), (4, 16), (3, 12)) if args.quick else ((1, 2), (4, 16, 64), (3, 12, 40))
    for name in ("O(3)", "O2z", "Octa"):
        group = ek.groups.get(name)
        table.head(name)
        for spin, channels, k in itertools.product(spins, widths, degrees):
            times = measure(group, spin, channels, k, args, clock)
            row = {"group": name, "spin": spin, "channels": channels, "k": k}
            row |= {order: 1e3 * seconds for order, seconds in times.items()}
            table.add(row | {"ratio": times["auto"] / min(times["aggregate"], times["message"])})
    ratios = sorted(row["ratio"] for row in table.rows)
    within = sum(ratio <= 1.2 for ratio in ratios)
    table.note(f"Within 20 % of the better order: {within} of {len(ratios)}; worst {ratios[-1]:.2f}.")
    table.write(args.out / "orders-cpu", command(), "group")


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
