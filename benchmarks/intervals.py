"""How sure a mean over seeds is."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def half_width(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of the mean (Student's t); None of a single value."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
