"""The numba engine: loops compiled by Numba, for float32, bfloat16 and float16 tensors on a CPU.

    sums.py, order.py, maps.py, overlap.py      answer a question with the kernels
    plan.py, launch.py                          what is known before a call, and how a kernel is run
    softmax.py, scores.py, soft.py, sigmoid.py  kernels for sums over pixels
    ordered.py, mapped.py, boxes.py             kernels for errors in order, for sums over a map, and for boxes
    arithmetic.py, curves.py, pixels.py         what is pasted into them
    compiler.py, cache.py, available.py         compile them, keep them on disk; whether there are any

Importing any file of this folder but this one and the last one imports numba.
"""

from __future__ import annotations

from ..contract import Field, Levels, MapSums, Order, Overlap, Pass, Residuals, Scores
from ..kernels import Folder
from .available import away

_folder = Folder(
    __name__,
    {
        Pass: ("sums", "measured"),
        Order: ("order", "ranked"),
        Levels: ("order", "on_levels"),
        MapSums: ("maps", "summed"),
        Overlap: ("overlap", "overlap"),
    },
    {
        Field: "no kernel hands out probabilities",
        Residuals: "no kernel is needed for differences of numbers",
        Scores: "no kernel reads scores",
    },
    away,
)
refuses, answer = _folder.refuses, _folder.answer
