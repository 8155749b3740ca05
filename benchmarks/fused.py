"""The fused sum of outer products over neighbours against gather and bmm, plain and compiled, forward and backward.

python benchmarks/fused.py [--nodes 20000] [--degree 16] [--p 40] [--q 80] [--dtype float32]

The floor is the time in which as many bytes as must be moved are copied, timed beside: E (p + q) + N p q numbers
forward, of h, of f at the edges and of A, and N p q + 2 E (p + q) more backward, with both gradients.
Without a GPU the plain implementation runs alone, on fewer points.
"""

import argparse
import statistics
import time

import torch

from emkernel.ops import fused
from emkernel.ops.neighbours import Neighbours


def gather_bmm(h, f, graph):
    """The same sum on a graph of one degree."""
    n = graph.num_targets
    return h.reshape(n, -1, h.shape[1]).transpose(1, 2) @ f[graph.source].reshape(n, -1, f.shape[1])


def timed(run, device):
    """Median seconds of a call."""
    times = []
    for _ in range(25):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[5:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("nodes", None), ("degree", 16), ("p", 40), ("q", 80)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    n, k, p, q = args.nodes or (20_000 if device == "cuda" else 1_000), args.degree, args.p, args.q
    dtype, edges = getattr(torch, args.dtype), n * k

    torch.manual_seed(0)
    target = torch.arange(n, device=device).repeat_interleave(k)
    graph = Neighbours.of(torch.stack([torch.randint(n, (edges,), device=device), target]), n, grouped=False)
    h, f, G = (torch.randn(*s, device=device, dtype=dtype) for s in ((edges, p), (n, q), (n, p, q)))
    h, f = h.requires_grad_(), f.requires_grad_()

    ways = {"fused": fused.outer_sum, "gather + bmm": gather_bmm}
    if device == "cuda":
        ways["gather + bmm, compiled"] = torch.compile(gather_bmm)
        name = torch.cuda.get_device_name() + ("" if fused._kernels(h) else ", no Triton: plain torch")
    else:
        name = "no GPU here: plain torch on the CPU"
    print(f"{name}; {n} nodes, {edges} edges, p = {p}, q = {q}, {args.dtype}")

    def forward_backward(way):
        return torch.autograd.grad(way(h, f, graph), (h, f), G)

    expected = [x.double() for x in (gather_bmm(h, f, graph).detach(), *forward_backward(gather_bmm))]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5 if dtype == torch.float32 else 2e-2
    for label, way in ways.items():
        given = [x.double() for x in (way(h, f, graph).detach(), *forward_backward(way))]
        errors = [float((x - y).norm() / y.norm()) for x, y in zip(given, expected)]
        if max(errors) > tolerance:
            raise SystemExit(f"{label} differs from gather + bmm: {errors} in A, dh, df, tolerance {tolerance}")
        print(f"{label:24} agrees to {max(errors):.1e}")
    del expected

    numbers = {"forward": edges * (p + q) + n * p * q}
    numbers["forward and backward"] = numbers["forward"] + n * p * q + 2 * edges * (p + q)
    for what, count in numbers.items():
        # a copy reads and writes: half as many numbers make it move the same
        copied = torch.empty(count // 2, device=device, dtype=dtype)
        floor = timed(copied.clone, device)
        print(f"{what}: floor {1e3 * floor:.3f} ms for {count * h.element_size() / 2**20:.0f} MiB")
        times = {}
        for label, way in ways.items():
            if what == "forward":
                with torch.no_grad():
                    times[label] = timed(lambda way=way: way(h, f, graph), device)
            else:
                times[label] = timed(lambda way=way: forward_backward(way), device)
            print(
                f"  {label:24} {1e3 * times[label]:8.3f} ms  {floor / times[label]:5.0%} of the floor"
                f"  {times[label] / times['fused']:6.2f} x fused"
            )


if __name__ == "__main__":
    main()
