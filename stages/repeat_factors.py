"""How often images are drawn so that rare categories are seen (Gupta et al., LVIS; SOLO thesis, Table 4.2).

Shape legend: I images.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
THRESHOLD = 1e-3  # share of images below which a category is repeated


def repeat_factors(categories: Sequence[Collection[int]], threshold: float = THRESHOLD) -> Floats:
    """How often each image counts in a pass [I], from the categories in it.

    r(c) = max(1, sqrt(threshold / f(c))) with f(c) the share of images that hold c; an image takes the largest of its
    categories', one without any takes 1.
    """
    held = Counter(category for image in categories for category in set(image))
    factor = {category: max(1.0, (threshold * len(categories) / count) ** 0.5) for category, count in held.items()}
    return np.array([max((factor[category] for category in image), default=1.0) for image in categories])


def draw_repeats(factors_I: Floats, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Images of one pass in order, each its factor's whole part and one more with the probability of the rest."""
    whole = np.floor(factors_I)
    times = whole + (generator.random(len(factors_I)) < factors_I - whole)
    return np.repeat(np.arange(len(factors_I)), times.astype(np.int64))
