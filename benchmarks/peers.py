"""One point convolution in emkernel and in its peers, forward and backward, radial network included.

python benchmarks/peers.py [--python-e3nn PATH] [--python-cue PATH] [--python-escnn PATH] [--sweep channels points ...]

The same irreducibles in and out (copies of spins 0, 1, ... of natural parity), the same graph, float32. Each
measurement runs in a process of its own, in the environment that has the library (see the README); a library that
is not installed is named and left out. Each layer's equivariance under an element of O(3) is checked, and that the
check would notice.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace

import torch
from _layers import COMPILED, LAYERS, Case
from _measure import add_options, answer, captured, clock, cloud, machine, memory, operations, settle, spawn
from _results import Table, command, plot_lines

SWEEPS = {
    "channels": (8, 16, 32, 64),
    "degree": (1, 2, 3),
    "points": (256, 1024, 4096),
    "neighbours": (8, 15, 30),
}
QUICK = {"channels": (4, 8), "degree": (1, 2), "points": (128, 256), "neighbours": (8, 15)}
LABELS = {"channels": "channels", "degree": "highest spin", "points": "points", "neighbours": "neighbours k"}
COLUMNS = [
    ("layer", "name", ""),
    ("forward, ms", "forward", ".2f"),
    ("and backward, ms", "both", ".2f"),
    ("times emkernel", "ratio", ".2f"),
    ("captured, ms", "captured", ".2f"),
    ("times emkernel", "captured_ratio", ".2f"),
    ("peak, MB", "resident", ".0f"),
    ("allocated, MB", "allocated", ".1f"),
    ("saved, MB", "saved", ".1f"),
    ("GFLOP", "gflop", ".3f"),
    ("paths", "paths", "d"),
    ("numbers per edge", "per_edge", "d"),
    ("weights", "weights", "d"),
    ("error", "error", ".0e"),
]
LEGEND = (
    "Times are the fastest of several calls; captured are forward and backward as one CUDA graph, the time of the "
    "device alone. Memory is that of forward and backward beyond what was there before: peak of the process, peak of "
    "what torch had allocated, and what is saved for the backward pass. GFLOP counts matrix products, forward and "
    "backward. Numbers per edge: hidden activations, weights, entries of the kernel or (escnn) of the sampled basis "
    "that meet the features of one edge. Error: relative, of equivariance under a rotation times -1, in float32."
)


def equivariance(layer, x: torch.Tensor, pos: torch.Tensor) -> tuple[float, float]:
    """Relative error of f(D x, R pos) = D f(x, pos), and of f(x, R pos) = D f(x, pos), which is wrong."""
    R, D = (m.to(x) for m in layer.element())
    with torch.no_grad():
        expected = layer.call(x, pos) @ D.T
        found, wrong = layer.call(x @ D.T, pos @ R.T), layer.call(x, pos @ R.T)
    scale = expected.norm()
    return float((found - expected).norm() / scale), float((wrong - expected).norm() / scale)


def measure(name: str, case: dict, device: str, threads: int, seconds: float) -> dict:
    """Everything about one layer: times, memory, operations, equivariance, counts."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    setting = Case(**case)
    pos, edge_index = cloud(setting.points, setting.neighbours, device)
    layer = (LAYERS | COMPILED)[name](setting, edge_index)
    layer.module.to(device)
    x = torch.randn(setting.points, layer.size, device=device, requires_grad=True)
    weights = [p for p in layer.module.parameters() if p.requires_grad]

    def both():
        for p in (x, *weights):
            p.grad = None
        layer.call(x, pos).square().sum().backward()

    def forward():
        with torch.no_grad():
            layer.call(x, pos)

    both()
    used = memory(both, device, [*weights, *layer.module.buffers()], layer.forget)
    error, control = equivariance(layer, x.detach(), pos)
    if not (error < 1e-4 and control > 1e-2):
        raise RuntimeError(f"{name} is not equivariant: error {error:.1e}, without acting on x {control:.1e}")
    times = {"forward": 1e3 * clock(forward, device, seconds / 2), "both": 1e3 * clock(both, device, seconds)}
    count = operations(both)
    alone = captured(both, device, seconds / 2)
    return {
        **times,
        "captured": None if alone is None else 1e3 * alone,
        **used,
        "gflop": None if count is None else count / 1e9,
        "paths": layer.paths,
        "per_edge": layer.per_edge,
        "weights": sum(p.numel() for p in weights),
        "error": error,
        "version": layer.version,
    }


def describe(case: Case) -> str:
    return (
        f"{case.points} points, k = {case.neighbours}, {case.channels} channels of spins 0 to {case.degree}"
    )


class Runs:
    """All measurements of one run, each made once, or as often as there are rounds and the fastest kept."""

    def __init__(self, args):
        self.args = args
        self.pythons = {
            "e3nn": args.python_e3nn,
            "cuequivariance": args.python_cue,
            "escnn": args.python_escnn,
        }
        self.done: dict[tuple[str, Case], dict] = {}
        self.absent: dict[str, str] = {}

    def __call__(self, name: str, case: Case) -> dict | None:
        """The result, {"failed": why}, or None where the library is not installed."""
        library = name.split(",")[0]
        if library in self.absent:
            return None
        if (name, case) not in self.done:
            self.done[name, case] = self._fastest(name, case, self.pythons.get(library, sys.executable))
        result = self.done[name, case]
        if result.get("failed", "").startswith(("ModuleNotFoundError", "no such python")):
            self.absent[library] = result["failed"]
            return None
        return result

    def _fastest(self, name: str, case: Case, python: str) -> dict:
        args = self.args
        if name == "emkernel, kernel on edges" and args.device == "cpu":
            # the kernel, its gradient, and one more
            need = 12 * case.points * case.neighbours * (case.channels * (case.degree + 1) ** 2) ** 2 / 2**30
            if need > args.gigabytes:
                return {"failed": f"not tried: about {need:.0f} GB"}
        options = {"name": name, "case": asdict(case), "device": args.device, "threads": args.threads}
        options["seconds"] = args.seconds
        result = spawn(__file__, options, python, args.gigabytes, args.limit)
        for _ in range(args.rounds - 1):
            if "failed" not in result:
                again = spawn(__file__, options, python, args.gigabytes, args.limit)
                result |= {key: min(result[key], again.get(key, result[key])) for key in ("forward", "both")}
        return result

    def plot(self, file, sweeps: dict[str, list[Case]], names: list[str], value: str, what: str, title: str):
        panels = []
        for key, varied in sweeps.items():
            lines = {}
            for name in names:
                found = [(getattr(c, key), self.done.get((name, c), {}).get(value)) for c in varied]
                if found := [(x, y) for x, y in found if y]:
                    lines[name] = found
            panels.append({"x": LABELS[key], "y": what, "lines": lines})
        return plot_lines(file, panels, title) if panels else ()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    for key, value in asdict(Case()).items():
        parser.add_argument(f"--{key}", type=int, help=f"of the standard setting (default {value})")
    parser.add_argument("--sweep", nargs="*", choices=SWEEPS, default=list(SWEEPS), help="what to vary")
    parser.add_argument("--layers", nargs="*", choices=LAYERS, default=list(LAYERS), help="what to measure")
    parser.add_argument("--eager", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--rounds", type=int, default=1, help="processes per measurement, the fastest counts")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="memory a process may take on the CPU")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a process may take")
    parser.add_argument("--name", default="peers", help="of the table and plots (default peers)")
    for library in ("e3nn", "cue", "escnn"):
        parser.add_argument(f"--python-{library}", default=sys.executable, metavar="PATH")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        answer(measure(**json.loads(args.measure)))
        return
    settle(args)
    given = {key: getattr(args, key) for key in asdict(Case()) if getattr(args, key) is not None}
    standard = replace(Case(points=256, channels=8) if args.quick else Case(), **given)
    values = QUICK if args.quick else SWEEPS
    sweeps = {key: [replace(standard, **{key: v}) for v in values[key]] for key in args.sweep}
    runs = Runs(args)
    compiled = [] if args.eager else [n for n in COMPILED if n.removesuffix(", compiled") in args.layers]
    columns = [c for c in COLUMNS if args.device != "cpu" or "captured" not in c[1]]
    table = Table(columns, "Point convolutions of several libraries", machine(args))
    for case in dict.fromkeys([standard, *(case for varied in sweeps.values() for case in varied)]):
        table.head(describe(case))
        reference = alone = None
        for name in [*args.layers, *(compiled if case == standard else [])]:
            if (result := runs(name, case)) is None:
                continue
            row = {"setting": describe(case), "name": name, **asdict(case), **result}
            reference = reference or result.get("both")
            if "both" in result:
                row["ratio"] = result["both"] / reference
            alone = alone or result.get("captured")
            if alone and result.get("captured"):
                row["captured_ratio"] = result["captured"] / alone
            table.add(row)
    table.note(LEGEND)
    for library, why in runs.absent.items():
        table.note(f"Not measured: {library} ({why}).")
    versions = {name.split(",")[0]: r["version"] for (name, _), r in runs.done.items() if "version" in r}
    table.note("Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".")
    out = args.out / f"{args.name}-{args.device.split(':')[0]}"
    title = f"{describe(standard)}, one of them varied\n{table.machine}"
    plots = ()
    for value, what, name in (
        ("both", "forward and backward, ms", "time"),
        ("allocated", "memory, MB", "memory"),
    ):
        plots += runs.plot(out.with_name(f"{out.name}-{name}.png"), sweeps, args.layers, value, what, title)
    table.write(out, command(), "setting", plots)


if __name__ == "__main__":
    main()
