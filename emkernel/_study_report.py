"""Tables and figures of a study."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ._comparison import Comparison, compare, deviation
from ._designs import Arm, Study
from ._tasks import TASKS

__all__ = ["Row", "draw", "markdown", "summarise", "table"]

LEVEL = 0.05  # below this probability a difference counts as one


@dataclass(frozen=True)
class Row:
    """What one network of a study reached.

    Attributes:
        arm, group: names of the network and of its symmetry.
        channels, parameters: its size.
        n: number of seeds that gave a number.
        mean, deviation: of the metric over seeds; standard deviation of the sample.
        unit: of the metric.
        against: the network that it is compared with, if any.
        difference: of the means, in the unit of the metric.
        relative: the same over the mean of the other.
        welch, paired: probability of so large a difference by chance (:class:`emkernel._comparison.Comparison`).
        blind: what a predictor reaches that does not look at the structure, on average over seeds.
        known: what the paper reports, if anything.
        seconds: of training, on average.
        values: by seed.
    """

    arm: str
    group: str
    channels: str
    parameters: int | None
    n: int
    mean: float | None
    deviation: float | None
    unit: str
    against: str
    difference: float | None
    relative: float | None
    welch: float | None
    paired: float | None
    blind: float | None
    known: float | None
    seconds: float | None
    values: str


def summarise(study: Study, results: dict[str, dict[int, dict[str, Any]]]) -> list[Row]:
    """One row for each network, from what stands in ``results.json`` of its runs, by name and seed."""
    values = {
        name: {seed: r["value"] for seed, r in runs.items() if r["value"] is not None} for name, runs in results.items()
    }
    rows = []
    for arm in study.arms:
        runs, mine = list(results[arm.name].values()), values[arm.name]
        found = compare(mine, values[arm.against]) if arm.against else Comparison()
        other = _mean(values[arm.against].values()) if arm.against else None
        channels = arm.config.model.get("channels", "")
        rows.append(
            Row(
                arm=arm.name,
                group=arm.group.name,
                channels=" ".join(map(str, channels)) if isinstance(channels, (tuple, list)) else str(channels),
                parameters=runs[0]["parameters"] if runs else None,
                n=len(mine),
                mean=_mean(mine.values()),
                deviation=deviation(list(mine.values())),
                unit=runs[0]["unit"] if runs else "",
                against=arm.against or "",
                difference=found.difference,
                relative=found.difference / other if found.difference is not None and other else None,
                welch=found.welch,
                paired=found.paired,
                blind=_mean(r["baseline"] for r in runs),
                known=study.known.get(arm.row),
                seconds=_mean(r["seconds_training"] for r in runs),
                values=" ".join(f"{seed}:{v:.6g}" for seed, v in sorted(mine.items())),
            )
        )
    return rows


def _mean(values) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


# ---- tables ---------------------------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    """The rows as CSV; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f.name for f in fields(Row)]
    writer.writerow(names)
    for row in rows:
        cells = (getattr(row, name) for name in names)
        writer.writerow(["" if c is None else f"{c:.6g}" if isinstance(c, float) else c for c in cells])
    return text.getvalue()


def _number(form: str, scale: int = 1) -> Callable[[Any], str]:
    return lambda x: "" if x is None else format(scale * x, form)


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "network": ("arm", str),
    "group": ("group", str),
    "channels": ("channels", str),
    "weights": ("parameters", _number(",d")),
    "seeds": ("n", str),
    "mean": ("mean", _number(".4f")),
    "deviation": ("deviation", _number(".4f")),
    "blind": ("blind", _number(".3f")),
    "paper": ("known", _number(".4g")),
    "against": ("against", str),
    "difference": ("difference", _number("+.4f")),
    "%": ("relative", _number("+.1f", 100)),
    "p (Welch)": ("welch", _number(".2g")),
    "p (paired)": ("paired", _number(".2g")),
    "s": ("seconds", _number(".0f")),
}


def markdown(study: Study, rows: list[Row]) -> str:
    """A page: the question, what was run, and the rows."""
    shown = {head: c for head, c in COLUMNS.items() if any(getattr(row, c[0]) not in (None, "") for row in rows)}
    cells = [list(shown), ["---"] * len(shown)]
    cells += [[show(getattr(row, name)) for name, show in shown.values()] for row in rows]
    lines = [f"# {study.question}", "", *_setting(study), "", *("| " + " | ".join(line) + " |" for line in cells)]
    return "\n".join(lines) + "\n"


def _setting(study: Study) -> list[str]:
    """What all networks share, and what each has of its own."""
    task = TASKS[study.arms[0].config.task]
    settings = [_flat(arm) for arm in study.arms]
    shared = {k: v for k, v in settings[0].items() if all(k in s and s[k] == v for s in settings)}
    better = "more is better" if task.higher else "less is better"
    lines = [
        f"Validation at the end of training, {task.metric} ({better}); mean and standard deviation over seeds, "
        "p of Welch's t-test and of the paired one by seed; *blind* is a predictor that does not look at the "
        "structure, *s* the seconds of training on the machine that ran it.",
        "",
        "All: " + ", ".join(f"{k} {v}" for k, v in shared.items()) + ".",
    ]
    for arm, setting in zip(study.arms, settings):
        own = ", ".join(f"{k} {v}" for k, v in setting.items() if k not in shared)
        if own:
            lines += ["", f"{arm.name}: {own}."]
    return lines


def _flat(arm: Arm) -> dict[str, str]:
    flat = {k: v for k, v in asdict(arm.config).items() if k not in ("root", "seed", "model") and v is not None}
    flat |= {k: v for k, v in arm.config.model.items() if k != "channels"}
    if flat["task"] != "nbody":
        flat.pop("field")
    if flat["task"] != "modelnet":
        flat.pop("rotations")
    return {
        k.replace("_", " "): " ".join(map(str, v)) or "none" if isinstance(v, (tuple, list)) else str(v)
        for k, v in flat.items()
    }


# ---- figures --------------------------------------------------------------------------------------------------------

COLOURS = ("#d9722e", "#3b75af", "#519e3e", "#8d69b8")


def draw(study: Study, rows: list[Row], path: Path) -> bool:
    """Bars or curves with standard deviations, as in figures 3 and 4 of the paper; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    task = TASKS[study.arms[0].config.task]
    columns = list(dict.fromkeys(arm.column for arm in study.arms))
    names = list(dict.fromkeys(arm.row for arm in study.arms))
    wide = len(names) * max(1.0, 0.55 * len(columns))
    figure = Figure(figsize=(6.4 if study.curves else min(14.0, 2.5 + wide), 4.0), layout="constrained")
    axes = figure.add_subplot()
    places = {name: i for i, name in enumerate(names)}
    for i, column in enumerate(columns):
        mine = [(arm, row) for arm, row in zip(study.arms, rows) if arm.column == column and row.mean is not None]
        means, spread = [row.mean for _, row in mine], [row.deviation or 0.0 for _, row in mine]
        style = {"label": column, "color": COLOURS[i % len(COLOURS)], "capsize": 3}
        if study.curves:
            axes.errorbar([float(arm.row) for arm, _ in mine], means, spread, marker="o", **style)
            continue
        width = 0.8 / len(columns)
        at = [places[arm.row] + (i - (len(columns) - 1) / 2) * width for arm, _ in mine]
        axes.bar(at, means, width, yerr=spread, **style)
        for x, (_, row), top in zip(at, mine, np.add(means, spread)):
            if row.difference is not None:
                text = f"{100 * row.difference:+.1f}" if task.higher else f"{100 * row.relative:+.0f} %"
                place = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center"}
                axes.annotate(text, (x, top), **place, color=_verdict(row, task))
    if study.curves:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("training items")
    else:
        axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
        axes.margins(y=0.12)
    unit = next((row.unit for row in rows if row.unit), "")
    axes.set_ylabel(f"{task.metric}, {unit}" if unit else task.metric)
    if len(columns) > 1:
        axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    part = path.with_name(path.name + ".part")
    part.write_bytes(picture.getvalue())
    os.replace(part, path)
    return True


def _verdict(row: Row, task) -> str:
    """Green where it is better than what it is compared with, red where worse, ochre where that may be chance."""
    if row.welch is None or row.welch >= LEVEL:
        return "#b8860b"
    return "#2e7d32" if (row.difference > 0) == task.higher else "#c62828"
