"""Time and memory of one PointConv, forward and backward, against points, neighbours, channels, spin and width.

python benchmarks/scaling.py [--points 1024] [--neighbours 15] [--channels 16] [--degree 2] [--width 8]

One of them is varied at a time, each measurement in a process of its own. Powers are fitted on doubly logarithmic axes,
over all values and between the last two, next to those of the number of operations that the layer should need: with
u hidden channels, m feature channels, spins a, b, c of kernel, input and output that couple, and f(d) = 2d + 1,

    E Σ_ab u m f(a) f(b)  +  N Σ_abc u m f(a) f(b) f(c)  +  N Σ_abc u m² f(c)  +  E (the radial network)

multiplications with additions forward, twice as many backward. The kernel on every edge is the reference.
"""

import argparse
import math
from dataclasses import asdict, replace
from pathlib import Path

from _layers import Case
from _measure import add_options, machine, settle, spawn
from _results import Table, command, plot_lines

SWEEPS = {
    "points": (256, 512, 1024, 2048, 4096, 8192),
    "neighbours": (4, 8, 16, 32, 64),
    "channels": (4, 8, 16, 32, 64, 128),
    "degree": (1, 2, 3, 4),
    "width": (2, 4, 8, 16, 32),
}
QUICK = {
    "points": (64, 128, 256),
    "neighbours": (4, 8, 16),
    "channels": (4, 8, 16),
    "degree": (1, 2, 3),
    "width": (4, 8, 16),
}
LABELS = {"neighbours": "neighbours k", "degree": "highest spin"}


def expected(case: Case) -> float:
    """GFLOP of forward and backward in the order that sums h ⊗ f over the neighbours first, see above."""
    spins, u, m = range(case.degree + 1), case.width, case.channels
    triples = [
        (a, b, c) for a in spins for b in spins for c in range(abs(a - b), a + b + 1, 2) if c <= case.degree
    ]
    f = [2 * l + 1 for l in spins]
    edge = sum(u * m * f[a] * f[b] for a, b in {(a, b) for a, b, _ in triples})
    edge += case.radial * case.hidden + case.hidden**2 + case.hidden * u * len(spins)
    node = sum(u * m * f[a] * f[b] * f[c] + u * m * m * f[c] for a, b, c in triples)
    return 6 * case.points * (case.neighbours * edge + node) / 1e9


def line(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / sum((x - mx) ** 2 for x in xs)
    return slope, my - slope * mx


def powers(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """Slope of log y against log x: least squares over all, and between the last two."""
    lx, ly = [math.log(x) for x in xs], [math.log(y) for y in ys]
    return line(lx, ly)[0], (ly[-1] - ly[-2]) / (lx[-1] - lx[-2])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    for key, value in asdict(Case()).items():
        parser.add_argument(f"--{key}", type=int, help=f"of the standard setting (default {value})")
    parser.add_argument("--sweep", nargs="*", choices=SWEEPS, default=list(SWEEPS), help="what to vary")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="memory a process may take on the CPU")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a process may take")
    args = parser.parse_args()
    settle(args)
    given = {key: getattr(args, key) for key in asdict(Case()) if getattr(args, key) is not None}
    standard = replace(Case(points=256, channels=8) if args.quick else Case(), **given)
    values = QUICK if args.quick else SWEEPS
    done: dict[tuple[str, Case], dict] = {}

    def run(case: Case, name: str = "emkernel") -> dict:
        if (name, case) not in done:
            options = {"name": name, "case": asdict(case), "device": args.device, "threads": args.threads}
            options["seconds"] = args.seconds
            script = Path(__file__).with_name("peers.py")
            done[name, case] = spawn(script, options, gigabytes=args.gigabytes, limit=args.limit)
        return done[name, case]

    columns = [
        ("", "value", ""),
        ("forward, ms", "forward", ".2f"),
        ("and backward, ms", "both", ".2f"),
        ("GFLOP expected", "expected", ".3f"),
        ("GFLOP done", "gflop", ".3f"),
        ("GFLOP/s", "rate", ".1f"),
        ("allocated, MB", "allocated", ".1f"),
        ("saved, MB", "saved", ".1f"),
        ("peak, MB", "resident", ".0f"),
    ]
    table = Table(columns, "One point convolution against its sizes", machine(args))
    measured = {
        "both": "time",
        "expected": "operations expected",
        "gflop": "operations done",
        "allocated": "memory",
    }
    summary = []

    def row(label: str, group: str, case: Case, result: dict) -> dict:
        result = {"group": group, "value": label, **asdict(case), **result}
        if "both" in result:
            result["expected"] = expected(case)
            result["rate"] = 1e3 * result["gflop"] / result["both"]
        return result

    title = (
        f"{standard.points} points, k = {standard.neighbours}, {standard.channels} channels of spins 0 to "
        f"{standard.degree}, width {standard.width}"
    )
    table.head(title)
    for name in ("emkernel", "emkernel, kernel on edges"):
        result = row(name, title, standard, run(standard, name))
        if name != "emkernel":
            result.pop("expected", None)
        table.add(result)
    panels = []
    for key in args.sweep:
        label = LABELS.get(key, key)
        table.head(f"{label}, the others as above")
        points, kept = {name: [] for name in measured}, []
        for value in values[key]:
            case = replace(standard, **{key: value})
            result = row(str(value), f"Against {label}", case, run(case))
            table.add(result)
            if "both" in result:
                # spins act through the numbers of their components
                size = (value + 1) ** 2 if key == "degree" else value
                kept.append((value, result["saved"]))
                for name in measured:
                    points[name].append((size, result[name]))
        if len(points["both"]) > 1:
            fits = {what: powers(*zip(*points[name])) for name, what in measured.items()}
            what = "components (L + 1)²" if key == "degree" else label
            text = ", ".join(f"{k} {a:.2f} ({b:.2f})" for k, (a, b) in fits.items())
            summary.append(f"Powers of {what}, over all values (between the last two): {text}.")
            if key == "neighbours":
                sizes, saved = zip(*kept)
                edge, node = (2**20 * v / standard.points for v in line(sizes, saved))
                summary.append(
                    f"Saved for the backward pass: {edge:.0f} bytes for each edge and {node:.0f} for each node."
                )
            lines = {
                "time, ms": points["both"],
                "operations expected, GFLOP / 10": [(x, 10 * y) for x, y in points["expected"]],
                "memory allocated, MB": points["allocated"],
            }
            panels.append({"x": what, "y": "", "lines": lines})
    print()
    for text in summary:
        table.note(text)
    out = args.out / f"scaling-{args.device.split(':')[0]}"
    plots = plot_lines(out.with_suffix(".png"), panels, f"{title}, one of them varied\n{table.machine}")
    table.write(out, command(), "group", plots)


if __name__ == "__main__":
    main()
