"""The triton engine: kernels for float32, bfloat16 and float16 tensors on a GPU, NVIDIA's or AMD's.

    sums.py, order.py, maps.py     answer a question
    operators.py                   what torch sees: opaque operators with a gradient
    call.py, launch.py             a problem as the kernels see it, and how a kernel is run
    softmax.py, sigmoid.py         kernels for sums over pixels: few classes, channels
    many.py, rows.py               the same for many classes, and for a target for each
    ordered.py, mapped.py          kernels for errors in order, and for sums over a map
    distance.py                    exact distance transforms
    arithmetic.py, curves.py, pixels.py, walk.py   what they share
    available.py                   whether there are any

Nothing here reads a value: no call waits for the device, and a step can be captured in a CUDA graph. A label that is
out of range makes the loss NaN. Sums are made in a fixed order, without floating-point atomics: the same bits each run.

With TRITON_INTERPRET=1 in the environment Triton's interpreter runs the kernels on a CPU, for tests.
"""

from __future__ import annotations

from ..contract import Field, Levels, MapSums, Order, Overlap, Pass, Residuals, Scores
from ..kernels import Folder
from .available import out_of_reach

_folder = Folder(
    __name__,
    {
        Pass: ("sums", "measured"),
        Order: ("order", "ranked"),
        Levels: ("order", "on_levels"),
        MapSums: ("maps", "summed"),
    },
    {
        Field: "no kernel hands out probabilities",
        Overlap: "no kernel for boxes",
        Residuals: "no kernel is needed for differences of numbers",
        Scores: "no kernel reads scores",
    },
    out_of_reach,
)
refuses, answer = _folder.refuses, _folder.answer
