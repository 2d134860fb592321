"""Random numbers that follow from a seed, whatever other trials draw at the same time."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_STATE = threading.RLock()  # the random states of torch, NumPy and Python are one for all threads


@contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """What torch, NumPy and Python draw inside follows from these numbers alone. Other threads wait at their own."""
    with _STATE:
        reseed(*seed)
        yield


def reseed(*seed: int) -> None:
    """Set the random states of this process."""
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002  what data sets of others draw from
    random.seed(number)
