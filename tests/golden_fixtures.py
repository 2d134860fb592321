"""Fixtures of the golden values, and what a golden case is.

Each case says which loss, under which settings, gives which value (and gradient, where one was worked out) on which
input. Inputs are logits, shape (N, C, *S): a fixture given in probabilities enters as ln p (softmax) or ln p/(1 − p)
(sigmoid). Values are float64; tests compare at 1e-12 relative (float32: 2e-6). Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Golden:
    name: str
    loss: str  # catalogue name
    settings: dict[str, Any]  # of the constructor
    task: str
    logits: np.ndarray
    target: np.ndarray
    value: float | list  # a list is the map of reduction="none"
    call: dict[str, Any] = field(default_factory=dict)  # weight=, denominator=
    gradient: np.ndarray | None = None  # of the value by the logits, shaped like them; NaN where not worked out


def logit(p):
    p = np.asarray(p, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def channels_first(table):
    """(pixels, classes) as one image with one axis of pixels: (1, classes, pixels)."""
    return np.asarray(table, dtype=np.float64).T[None].copy()


# ---- fixtures ----------------------------------------------------------------------------------------------------

# B: four binary logits.
B = np.array([[[2.0, -1.0, 0.5, -3.0]]])
B_TARGET = np.array([[1, 0, 0, 1]])

# P: four binary probabilities; I = 1.5, P = 1.8, R = 2, Σp² = 1.22.
P_PROBABILITY = np.array([0.9, 0.6, 0.2, 0.1])
P = logit(P_PROBABILITY)[None, None]
P_TARGET = np.array([[1, 1, 0, 0]])
P_BOTH = np.log(np.stack([1.0 - P_PROBABILITY, P_PROBABILITY]))[None]  # as a softmax

# P with one small object.
P_SMALL = logit([0.6, 0.2, 0.1, 0.1])[None, None]
P_SMALL_TARGET = np.array([[1, 0, 0, 0]])

# M: four pixels, three classes, logits.
M = channels_first([[2, 1, 0], [0, 1, 0.5], [1, -1, 3], [0.2, 0.1, -0.3]])
M_TARGET = np.array([[0, 1, 2, 1]])
M_TARGET_LAST_IGNORED = np.array([[0, 1, 2, -100]])

# Q: four pixels, three classes, probabilities; I = .7, .9, .6, P = 1.5, 1.3, 1.2, R = 1, 2, 1.
Q = np.log(channels_first([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]]))
Q_TARGET = np.array([[0, 1, 2, 1]])
Q_TARGET_LAST_IGNORED = np.array([[0, 1, 2, -100]])
Q_TARGET_NO_2 = np.array([[0, 1, 0, 1]])

# Two binary images of two pixels: I = 1.8 and .3, P = 1.8 and .4, R = 2 and 1. Only the two Dice losses were given
# (per image 1/19 and 4/7, pooled 5/26); the sums follow from them, their division among the pixels does not matter.
PAIR = logit([[0.9, 0.9], [0.3, 0.1]])[:, None]
PAIR_TARGET = np.array([[1, 1], [1, 0]])

BINARY, MULTICLASS, MULTILABEL = "binary", "multiclass", "multilabel"
NONE, SUM = {"reduction": "none"}, {"reduction": "sum"}


def one(z):
    """One binary pixel."""
    return np.array([[[float(z)]]])


def row(*z):
    """One pixel of several classes; also its soft target."""
    return np.array(z, dtype=np.float64)[None, :, None]


def label(y):
    return np.array([[y]])


def grad_row(pixel, *values):
    """Known for one pixel of fixture M only."""
    gradient = np.full((1, 3, 4), np.nan)
    gradient[0, :, pixel] = values
    return gradient


def through_sigmoid(by_probability, p):
    """A gradient by p as one by the logit, one row of pixels: ∂p/∂z = p(1 − p)."""
    p = np.asarray(p, dtype=np.float64)
    return (np.asarray(by_probability) * p * (1.0 - p)).reshape(1, 1, -1)
