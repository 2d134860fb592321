"""The engines: what every loss is computed from.

Almost every loss of the field is a formula over a few per-class sums or over one number per pixel. A loss, or a sum of
losses, asks for exactly those: see `contract` for the questions. Softmax and sigmoid live in the engines and nowhere
else.

An engine is a folder here with two functions, `refuses` and `answer` (see `contract.Engine`), and a name in `ENGINES`:

* `numba`: kernels for float32, bfloat16 and float16 tensors on a CPU.
* `triton`: kernels for the same on a GPU.
* `plain`: ordinary torch. Any device and dtype, differentiable twice, traceable, vmappable; it answers everything.

`ask` puts a question to the engines that the user chose, with `use_engine`.
"""

from __future__ import annotations

from .choice import ENGINES, ask, use_engine

__all__ = ["ENGINES", "ask", "use_engine"]
