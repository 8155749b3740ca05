"""Peak memory of one PointConv on a million edges, forward and backward, against the targets that are taken at a time.

python benchmarks/memory.py [--points 65536] [--neighbours 16] [--channels 16] [--degree 2] [--chunks 256 1024 4096]

Memory is that of the process beyond what it had with points, features, prepared graph and layer in it, each in a
process of its own. What the kernel network keeps for the backward pass grows with the edges; only what lies between it
and the output is bounded by ``chunk``. The first row is the kernel network alone.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from _measure import add_options, answer, forget, machine, memory, settle, spawn
from _results import Table, command, plot_bars


def measure(options: dict) -> dict:
    """Memory in MB and seconds of the processor of a forward and backward pass."""
    import emkernel as ek
    from emkernel.models import harmonic_rep

    torch.manual_seed(0)
    torch.set_num_threads(options["threads"])
    rep = harmonic_rep(ek.groups.O(3), options["channels"], options["degree"])
    conv = ek.nn.PointConv(rep, rep, cutoff=0.2, neighbours=options["neighbours"], chunk=options["chunk"])
    points = options["points"]
    pos = torch.randn(points, 3)
    graph = ek.Neighbours.of(ek.knn_graph(pos, options["neighbours"]), points)
    x = torch.randn(points, rep.size, requires_grad=True)

    def kernel():
        fields = conv.kernel.hidden(pos[graph.target] - pos[graph.source])
        numbers = [t for f in fields for t in (f.values, f.gates) if t is not None and t.requires_grad]
        torch.autograd.backward(numbers, [torch.ones_like(t) for t in numbers])

    def both():
        conv(x, pos, graph).square().mean().backward()

    f = kernel if options["alone"] else both
    begun = time.process_time()
    f()
    seconds = time.process_time() - begun
    for tensor in (x, *conv.parameters()):
        tensor.grad = None
    used = memory(f, "cpu", conv.parameters(), lambda: forget(conv.kernel))
    return used | {"seconds": seconds, "edges": graph.num_edges}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    for name, value in (("points", 65536), ("neighbours", 16), ("channels", 16), ("degree", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--chunks", type=int, nargs="*", default=[256, 1024, 4096])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        answer(measure(json.loads(args.measure)))
        return
    settle(args)
    if args.quick:
        args.points, args.chunks = 4096, [256, 1024]
    columns = [
        ("targets at a time", "name", ""),
        ("peak, MB", "resident", ".0f"),
        ("allocated by torch, MB", "allocated", ".0f"),
        ("kept for the backward pass, MB", "saved", ".0f"),
        ("forward and backward, s", "seconds", ".1f"),
    ]
    sizes = (
        f"{args.points} points, k = {args.neighbours}, {args.channels} channels of spins 0 to {args.degree}"
    )
    table = Table(columns, "Memory of one point convolution", machine(args))
    table.head(sizes)
    settings = [("the kernel network alone", True, None), *((f"chunk = {c}", False, c) for c in args.chunks)]
    for name, alone, chunk in [*settings, ("by default", False, None)]:
        options = {
            k: getattr(args, k) for k in ("points", "neighbours", "channels", "degree", "threads", "device")
        }
        result = spawn(Path(__file__), options | {"chunk": chunk, "alone": alone}, gigabytes=12.0, limit=1800)
        table.add({"name": name, "group": sizes, **result})
    out, done = args.out / "memory-cpu", [row for row in table.rows if "failed" not in row]
    lines = {what: [(row["name"], row[key]) for row in done] for what, key, _ in columns[1:4]}
    plots = plot_bars(
        out.with_suffix(".png"), [{"x": "MB", "lines": lines}], f"{sizes}\n{table.machine}", log=False
    )
    table.write(out, command(), "group", plots)


if __name__ == "__main__":
    main()
