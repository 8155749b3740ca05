"""What several seeds say: mean, deviation, and how sure a difference between two networks is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Comparison", "compare", "deviation"]


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample, (Σ (x - x̄)² / (n - 1))^(1/2); none of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """How one sample differs from another.

    Attributes:
        difference: of the means.
        welch: the probability of so large a difference of two independent normal samples of one mean and any
            deviations (Welch, 1947); None where a sample has fewer than two values or none vary.
        paired: the same of pairs, by seed (Student, 1908); None where there are fewer than two or all differ alike.
    """

    difference: float | None = None
    welch: float | None = None
    paired: float | None = None


def compare(values: dict[int, float], reference: dict[int, float]) -> Comparison:
    """Compare what two networks reached, each by seed; all is None where one of them has nothing.

    Example:
        >>> from emkernel._comparison import compare
        >>> compare({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 4.0, 2: 6.0}).difference
        -2.0
    """
    from scipy import stats

    if not values or not reference:
        return Comparison()
    a, b = (np.array([sample[seed] for seed in sorted(sample)]) for sample in (values, reference))
    both = sorted(values.keys() & reference.keys())
    pairs = np.array([[values[seed], reference[seed]] for seed in both]).reshape(-1, 2)
    with warnings.catch_warnings():
        # samples that do not vary are answered with None
        warnings.simplefilter("ignore", RuntimeWarning)
        welch = stats.ttest_ind(a, b, equal_var=False).pvalue if min(len(a), len(b)) > 1 else math.nan
        paired = stats.ttest_rel(*pairs.T).pvalue if len(pairs) > 1 else math.nan
    varies = len(pairs) > 1 and np.ptp(pairs[:, 0] - pairs[:, 1]) > 0
    return Comparison(
        float(a.mean() - b.mean()),
        float(welch) if math.isfinite(welch) and (np.ptp(a) > 0 or np.ptp(b) > 0) else None,
        float(paired) if math.isfinite(paired) and varies else None,
    )
