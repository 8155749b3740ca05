"""What the benchmarks write: tables and plots."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

from _measure import ROOT


class Table:
    """Rows of results: printed as they come, written as Markdown and as CSV.

    Args:
        columns: heading, key of the row and format of each column.
        title, machine: what and where.
    """

    def __init__(self, columns: list[tuple[str, str, str]], title: str, machine: str):
        self.columns, self.title, self.machine, self.rows = columns, title, machine, []
        self.notes: list[str] = []
        print(f"{title}\n{machine}")

    def _cells(self, row: dict) -> list[str]:
        """What stands in the row; where the measurement failed, why, after the name."""
        values = [row.get(key) for _, key, _ in self.columns]
        cells = ["" if v is None else format(v, form) for v, (_, _, form) in zip(values, self.columns)]
        if "failed" in row:
            cells[1] = row["failed"]
        return cells

    def _line(self, cells) -> str:
        return "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, self._widths))
        )

    def head(self, group: str = "") -> None:
        """The headings, above the rows that follow."""
        self._widths = [max(26 if i == 0 else 9, len(h)) for i, (h, _, _) in enumerate(self.columns)]
        print(f"\n{group}" if group else "")
        print(self._line([h for h, _, _ in self.columns]), flush=True)

    def add(self, row: dict) -> None:
        self.rows.append(row)
        print(self._line(self._cells(row)), flush=True)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(text, flush=True)

    def write(self, path: Path, command: str, group: str | None = None, plots: tuple[Path, ...] = ()) -> None:
        """``path`` with .md and .csv; rows that differ in the key ``group`` go into tables of their own."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"# {self.title}", "", f"    {command}", "", f"{self.machine}."]
        for name in dict.fromkeys(row.get(group) for row in self.rows):
            lines += ["", *([f"## {name}", ""] if name is not None else [])]
            lines.append("| " + " | ".join(h for h, _, _ in self.columns) + " |")
            lines.append("|---|" + "---:|" * (len(self.columns) - 1))
            for row in self.rows:
                if row.get(group) == name:
                    lines.append("| " + " | ".join(self._cells(row)) + " |")
        for text in self.notes:
            lines += ["", text]
        for plot in plots:
            lines += ["", f"![{plot.stem}]({plot.name})"]
        path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, keys, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        written = [path.with_suffix(".md"), path.with_suffix(".csv"), *plots]
        print("\nwritten: " + ", ".join(str(p) for p in written))


def command() -> str:
    """The command line of this process, as anyone would type it."""
    script = Path(sys.argv[0]).resolve()
    script = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script
    return " ".join(["python", str(script), *sys.argv[1:]])


def plot_lines(path: Path, panels: list[dict], title: str) -> tuple[Path, ...]:
    """One panel per entry, with keys x, y (labels) and lines {name: [(x, y), ...]}, on doubly logarithmic axes."""

    def draw(ax, panel: dict, colours: dict) -> None:
        ticks = sorted({x for line in panel["lines"].values() for x, _ in line})
        for name, line in panel["lines"].items():
            ax.plot(*zip(*sorted(line)), "o-", color=colours[name], label=name, markersize=3.5)
        ax.set(xscale="log", yscale="log", xlabel=panel["x"], ylabel=panel["y"])
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.minorticks_off()

    return _plot(path, panels, title, draw, 2.8)


def plot_bars(path: Path, panels: list[dict], title: str, log: bool = True) -> tuple[Path, ...]:
    """One panel per entry, with keys x (label) and lines {name: [(label of the bar, value), ...]}, side by side."""

    def draw(ax, panel: dict, colours: dict) -> None:
        labels = list(dict.fromkeys(label for line in panel["lines"].values() for label, _ in line))
        lines = {name: line for name, line in panel["lines"].items() if line}
        high = 0.8 / max(1, len(lines))
        for n, (name, line) in enumerate(lines.items()):
            places = [labels.index(label) + (n + 0.5) * high - 0.4 for label, _ in line]
            bars = ax.barh(places, [value for _, value in line], high, color=colours[name], label=name)
            ax.bar_label(bars, [f"{value:.3g}" for _, value in line], padding=2, fontsize=7)
        ax.set_yticks(range(len(labels)), labels, fontsize=8)
        ax.invert_yaxis()
        ax.set(xscale="log" if log else "linear", xlabel=panel["x"])
        ax.minorticks_off()
        ax.margins(x=0.15)

    most = max((sum(map(len, panel["lines"].values())) for panel in panels), default=0)
    return _plot(path, panels, title, draw, 1.0 + 0.2 * most, across=2)


def _plot(
    path: Path, panels: list[dict], title: str, draw, height: float, across: int = 3
) -> tuple[Path, ...]:
    """A figure of panels under one legend; nothing where there are none, or matplotlib is not installed."""
    if not panels:
        return ()
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plot")
        return ()
    matplotlib.use("Agg")
    from matplotlib import pyplot

    across = 2 if len(panels) == 4 else min(across, len(panels))
    down = math.ceil(len(panels) / across)
    width = max(3.6 * across, 6.4)
    figure, axes = pyplot.subplots(
        down, across, figsize=(width, height * down + 0.8), layout="constrained", squeeze=False
    )
    names = list(dict.fromkeys(name for panel in panels for name in panel["lines"]))
    colours = dict(zip(names, pyplot.get_cmap("tab10").colors))
    handles = {}
    for ax, panel in zip(axes.flat, panels):
        draw(ax, panel, colours)
        ax.grid(True, alpha=0.3)
        handles = {label: handle for handle, label in zip(*ax.get_legend_handles_labels())} | handles
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    return (path,)
