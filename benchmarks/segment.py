"""Segment reductions over sorted and shuffled targets, forward and backward: torch against torch_scatter.

python benchmarks/segment.py [--edges 200000] [--nodes 10000] [--features 64] [--device cpu]
"""

import argparse
import time

import torch

from emkernel.ops.segment import available_backends, segment_reduce


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("edges", 200_000), ("nodes", 10_000), ("features", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    index = torch.randint(args.nodes, (args.edges,), device=args.device)
    values = torch.randn(args.edges, args.features, device=args.device, requires_grad=True)

    def run(order, reduce, backend):
        out = segment_reduce(values, order, args.nodes, reduce, backend)
        out.square().sum().backward()
        if args.device != "cpu":
            torch.cuda.synchronize()

    def best(f):
        f()
        times = []
        for _ in range(10):
            start = time.perf_counter()
            f()
            times.append(time.perf_counter() - start)
        return min(times)

    print(
        f"{args.edges} edges, {args.nodes} nodes, {args.features} features, "
        f"{args.device}; backends {available_backends()}"
    )
    for label, order in (("sorted", index.sort().values), ("shuffled", index)):
        for reduce in ("sum", "mean", "max"):
            times = {b: best(lambda b=b: run(order, reduce, b)) for b in available_backends()}  # noqa: B023
            row = "  ".join(f"{b} {1e3 * t:7.2f} ms" for b, t in times.items())
            ratio = (
                f"  torch / torch_scatter {times['torch'] / times['torch_scatter']:.2f}"
                if len(times) > 1
                else ""
            )
            print(f"{label:9} {reduce:5} {row}{ratio}")


if __name__ == "__main__":
    main()
