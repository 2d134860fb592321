"""Class weights by name: in `ce(class_weight="inverse")` the lab puts weights counted from the training data."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from lossmith.lab.data import Data
from lossmith.settings import nearest

NAMES = ("inverse", "median", "effective", "enet")
_NAMED = re.compile(r"""(\bclass_weight\s*=\s*)(["'])([^"']*)\2""")


def with_weights(text: str, data: Data) -> str:
    """The text of a loss with every `class_weight="name"` replaced by numbers, one per class of the data.

    The counts are of the pixels of the training images; of the images, where each has one label.
    Raises `ValueError` for an unknown name.
    """

    def numbers(match: re.Match[str]) -> str:
        name = match[3]
        if name not in NAMES:
            raise ValueError(f"no class_weight is called {name!r}; {nearest(name, NAMES)}")
        counts = torch.from_numpy(data.counts(data.train))
        if data.kind == "classification":  # an image holds one class only: frequencies per image say nothing
            counts = counts.sum(0, keepdim=True)
        return f"{match[1]}[{', '.join(f'{w:.6g}' for w in _weights(name, counts).tolist())}]"

    return _NAMED.sub(numbers, text)


def _weights(name: str, counts: Tensor) -> Tensor:
    """Weights (C,) from counts (images, C); 0 for a class that never occurs.

    inverse    1 / f, f the class's share of all pixels
    median     median(g) / g, g its share of the pixels of the images that contain it (Eigen and Fergus 2015)
    effective  (1 − β) / (1 − β^n), β = 0.999, n its count, scaled to the sum C (Cui et al. 2019)
    enet       1 / ln(1.02 + f) (Paszke et al. 2016)
    """
    n = counts.sum(0).double()
    there = n > 0
    f = n / n.sum()
    if name == "inverse":
        weights = 1 / f
    elif name == "median":
        g = n / torch.where(counts > 0, counts.sum(1, keepdim=True), 0).sum(0)
        weights = g[there].quantile(0.5) / g
    elif name == "effective":
        rate = 1 / -torch.expm1(n * torch.log(torch.tensor(0.999, dtype=torch.float64)))
        weights = rate * len(n) / rate[there].sum()
    else:
        weights = 1 / torch.log(1.02 + f)
    return torch.where(there, weights, 0.0)
