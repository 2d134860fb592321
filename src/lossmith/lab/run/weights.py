"""Class weights by name: in `ce(class_weight="inverse")` the lab puts weights counted from the training data."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from lossmith import weighting
from lossmith.settings import nearest

_WEIGHTS = {
    "inverse": weighting.inverse_frequency,
    "median": weighting.median_frequency,
    "effective": weighting.effective_number,
    "enet": weighting.enet,
}
NAMES = tuple(_WEIGHTS)
_NAMED = re.compile(r"""(\bclass_weight\s*=\s*)(["'])([^"']*)\2""")


def with_weights(text: str, counts: Callable[[], np.ndarray[Any, Any]]) -> str:
    """The text of a loss with every `class_weight="name"` replaced by numbers, one for each class.

    `counts` gives how many pixels of each class each training image has, (images, classes).
    Raises `ValueError` for an unknown name.
    """

    def numbers(match: re.Match[str]) -> str:
        name = match[3]
        if name not in NAMES:
            raise ValueError(f"no class_weight is called {name!r}; {nearest(name, NAMES)}")
        return f"{match[1]}[{', '.join(f'{w:.6g}' for w in _WEIGHTS[name](counts()).tolist())}]"

    return _NAMED.sub(numbers, text)
