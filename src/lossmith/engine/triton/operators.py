"""What torch sees of the pass: two opaque operators, for compilers, exporters, AMP and FSDP alike.

Functional, with fakes, and differentiable: the gradient is the second operator. Where a graph of the gradient is
wanted, or autograd looks at many gradients at once, plain torch makes it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..contract import Pass, Want
from ..curves import Curve
from ..kernels import by_torch, gradient_of
from ..problem import Problem, Task, certain
from . import many, pixels, rows, sigmoid, softmax
from .call import WALKED, Call, like, side_by_side
from .curves import curve_of, kind_of
from .launch import launch

CARRIED = 160  # sums of all classes that a thread can carry through a loop in its registers: more would spill
NOBODY, OWN, EVERY = (whose.value for whose in (pixels.NOBODY, pixels.OWN, pixels.EVERY))
Name = str | tuple[Curve, int]  # of a row: of a curve with its label, 1 but for the "no" of a sigmoid


class Asked(NamedTuple):
    """What is wanted of a pass, as operators are told. `labels`: sums for each; without it one for all may do."""

    task: str
    ignore: int
    labels: bool
    errors: bool
    squares: bool
    spread: bool
    u: int  # whose surprise, pixel by pixel: see `pixels.py`
    kinds: list[int]
    xs: list[float]

    @staticmethod
    def of(problem: Problem, want: Want) -> Asked:
        kinds, xs = [kind_of(curve) for curve in want.curves], [float(curve.x) for curve in want.curves]
        several = want.spread or not certain(problem)
        u = (EVERY if several else OWN) if want.u else NOBODY
        told = want.by_label, want.errors, want.squares, want.spread, u
        return Asked(problem.task, problem.ignore_index, *told, kinds, xs)

    @property
    def want(self) -> Want:
        curves = tuple(curve_of(kind, x) for kind, x in zip(self.kinds, self.xs, strict=True))
        return Want(self.labels, self.errors, self.squares, curves, self.u > 0, self.spread)


SETTINGS = "str task, int ignore, bool labels, bool errors, bool squares, bool spread, int u, int[] kinds, float[] xs"
PROBLEM = "Tensor z, Tensor y, Tensor? w, Tensor? sample"


def rows_of(asked: Asked, hard: bool) -> list[Name]:
    """The rows of the table, in order. Under a softmax what belongs to the label of a pixel comes first."""
    want, softmax_ = asked.want, asked.task == "multiclass"
    if softmax_:
        names: list[Name] = ["t", *["fn"] * want.errors, *["fn2"] * want.squares, *((c, 1) for c in want.curves)]
        names += ["fp"] * want.errors + ["fp2"] * want.squares + ["spread"] * want.spread
        return names if hard else [*names, "n", "tt"]
    names = ["n", "t", "tt", *["fp", "fn"] * want.errors, *["fp2", "fn2"] * want.squares]
    names += [(curve, label) for curve in want.curves for label in (0, 1)]
    return names + ["spread no", "spread"] * want.spread


def merged(z: Tensor, y: Tensor, asked: Asked) -> bool:
    """Whether one sum for all labels is made: many classes side by side, and nobody asks for sums of each."""
    hard_softmax = asked.task == "multiclass" and y.ndim < z.ndim
    many_classes = z.shape[1] > softmax.FEW and side_by_side(z)
    return hard_softmax and not asked.labels and asked.u != EVERY and many_classes


def _sums(z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor]:
    asked = Asked(*settings)
    by_rows = merged(z, y, asked)
    call = Call(z, y, w, sample, asked.task, asked.ignore, apart=not by_rows)
    n, c, s, xs = call.images, call.classes, call.pixels, tuple(asked.xs)
    count = len(rows_of(asked, y.ndim < z.ndim))
    u = _like_u(z, y, asked)
    wants = {"ERRORS": asked.errors, "SQUARES": asked.squares, "SPREAD": asked.spread}
    told = {**call.flags, "KINDS": tuple(asked.kinds), "WANT_U": asked.u}
    if by_rows:
        part = z.new_empty(n, s, count, dtype=torch.float32)
        block, warps = _row(c)
        even, strides = _even(s, call.zn, call.zs)
        given = (*call.tensors, u, part, *strides, s, call.ignore, xs)
        launch(rows.sums, n * s, *given, C=c, B=block, EVEN=even, num_warps=warps, **told)
        return part.sum(1, dtype=torch.float64).unsqueeze(2), u
    if asked.task != "multiclass":
        block, v = (128, 1) if call.apart else (512, 4)
        soft = y.is_floating_point() or asked.u == EVERY
        programs, steps = call.shared(block, c)
        part = z.new_empty(s if call.apart else n * c * programs, count * (c if call.apart else 1), dtype=torch.float32)
        launch(
            sigmoid.sums, n * c * programs, *call.tensors, u, part, *call.strides, s, programs, steps, c, call.ignore,
            z.numel(), xs, B=block, V=v, MODE=call.mode, SOFT=soft, NEAR=call.zs == 1, T_NEAR=call.ts == 1,
            APART=call.apart, **wants, **told,
        )  # fmt: skip
        part = part.view(len(z), c, 1 if call.apart else programs, count).sum(2, dtype=torch.float64)
        return part.transpose(1, 2).contiguous(), u
    if call.few and asked.u != EVERY and count * c <= CARRIED:
        block, v = _tile(c, z.element_size(), call.apart)
        programs, steps = call.shared(block)
        part = z.new_empty(s if call.apart else n * programs, count, c, dtype=torch.float32)
        launch(
            softmax.sums, n * programs, *call.tensors, u, part, call.zn, call.zc, call.zs, s, programs, steps,
            call.ignore, xs, C=c, B=block, V=v, NEAR=call.zs == 1, ACROSS=_across(c, call.zc, call.zs),
            TIGHT=call.zs == c, APART=call.apart, **wants, **told,
        )  # fmt: skip
    else:
        programs, steps = call.shared(WALKED)
        part = z.new_empty(s if call.apart else n * programs, count, c, dtype=torch.float32)
        launch(
            many.sums, n * programs, *call.tensors, u, part, *call.strides, s, programs, steps, call.ignore, xs,
            C=c, B=WALKED, MODE=call.mode, APART=call.apart, num_warps=1, **wants, **told,
        )  # fmt: skip
    return part.view(len(z), 1 if call.apart else programs, count, c).sum(1, dtype=torch.float64), u


def _gradient(
    z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, up: Tensor, up_u: Tensor | None, *settings: Any
) -> Tensor:
    asked = Asked(*settings)
    by_rows = merged(z, y, asked)
    call = Call(z, y, w, sample, asked.task, asked.ignore, apart=not by_rows)
    n, c, s, xs = call.images, call.classes, call.pixels, tuple(asked.xs)
    out, on, oc, os = call.output(z)
    table = (up if asked.task == "multiclass" else up.transpose(1, 2)).float().contiguous()
    given = (*call.tensors, table if up_u is None else up_u.float().contiguous(), table, out)
    wants = {"ERRORS": asked.errors, "SQUARES": asked.squares, "SPREAD": asked.spread}
    told = {**call.flags, "KINDS": tuple(asked.kinds), "WANT_U": asked.u if up_u is not None else NOBODY}
    if by_rows:
        block, warps = _row(c)
        even, strides = _even(s, call.zn, call.zs, on, os)
        sizes = (*strides, s, call.ignore, xs)
        launch(rows.gradient, n * s, *given, *sizes, C=c, B=block, EVEN=even, num_warps=warps, **told)
    elif asked.task != "multiclass":
        block = 128 if call.apart else 512
        soft = y.is_floating_point() or asked.u == EVERY
        programs = -(-s // block)
        launch(
            sigmoid.gradient, n * c * programs, *given, *call.strides, on, oc, os, s, programs, c, call.ignore,
            z.numel(), xs, B=block, MODE=call.mode, SOFT=soft, NEAR=call.zs == 1, T_NEAR=call.ts == 1,
            APART=call.apart, OUT_NEAR=os == 1, **wants, **told,
        )  # fmt: skip
    elif call.few and asked.u != EVERY:
        block, v = _tile(c, z.element_size(), call.apart)
        programs = -(-s // block)
        launch(
            softmax.gradient, n * programs, *given, call.zn, call.zc, call.zs, on, oc, os, s, programs, call.ignore,
            xs, C=c, B=block, V=v, NEAR=call.zs == 1, ACROSS=_across(c, call.zc, call.zs), TIGHT=call.zs == os == c,
            APART=call.apart, OUT_NEAR=os == 1, OUT_ACROSS=_across(c, oc, os), **wants, **told,
        )  # fmt: skip
    else:
        programs = -(-s // WALKED)
        launch(
            many.gradient, n * programs, *given, *call.strides, on, oc, os, s, programs, call.ignore, xs,
            C=c, B=WALKED, MODE=call.mode, APART=call.apart, num_warps=1, **wants, **told,
        )  # fmt: skip
    return out


def _like_u(z: Tensor, y: Tensor, asked: Asked) -> Tensor:
    """Memory for u: of the label like the labels under a softmax, like the logits under a sigmoid; of every label like
    the logits, or two of these, no and yes; empty where nobody asks."""
    softmax_ = asked.task == "multiclass"
    if asked.u == EVERY:
        shape = tuple(z.shape) if softmax_ else (2, *z.shape)
    else:
        shape = tuple(y.shape if softmax_ else z.shape) if asked.u else (0,)
    return z.new_empty(shape, dtype=torch.float32)


def _tile(classes: int, size: int, apart: bool) -> tuple[int, int]:
    """B pixels a block, V of them side by side per thread: 16-byte loads, or 8 bytes at least."""
    v = 1 if apart else max(4 if classes <= 8 else 2 if classes <= 16 else 1, min(4, 4 // size))
    return 128 * v, v


def _across(classes: int, channel: int, pixel: int) -> int:
    """Whether the classes lie side by side: 0, or the number of columns to read, a power of two."""
    return 1 << (classes - 1).bit_length() if channel == 1 and pixel >= classes > 1 else 0


def _even(pixels: int, *strides: int) -> tuple[int, list[int]]:
    """The strides of images and of their pixels, in turn, in units of what is returned first: 2, 4 or 8 if they are
    multiples of it; 1 where the compiler sees by itself that they are multiples of 16. A single pixel has no stride."""
    told = [stride if pixels > 1 or k % 2 == 0 else 0 for k, stride in enumerate(strides)]
    even = math.gcd(16, *told) % 16 or 1
    return even, [stride // even for stride in told]


def _row(classes: int) -> tuple[int, int]:
    """Classes at a time, and warps."""
    block = min(4096, 1 << (classes - 1).bit_length())
    return block, max(1, min(8, block // 512))


# ---- the operators ---------------------------------------------------------------------------------------------------

pass_sums = torch.library.custom_op(
    "lossmith::pass_sums", _sums, mutates_args=(), schema=f"({PROBLEM}, {SETTINGS}) -> (Tensor, Tensor)"
)
pass_gradient = torch.library.custom_op(
    "lossmith::pass_gradient",
    _gradient,
    mutates_args=(),
    schema=f"({PROBLEM}, Tensor up, Tensor? up_u, {SETTINGS}) -> Tensor",
)


@pass_sums.register_fake
def _(z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, *settings: Any) -> tuple[Tensor, Tensor]:
    asked = Asked(*settings)
    classes = 1 if merged(z, y, asked) else z.shape[1]
    table = z.new_empty(z.shape[0], len(rows_of(asked, y.ndim < z.ndim)), classes, dtype=torch.float64)
    return table, _like_u(z, y, asked)


@pass_gradient.register_fake
def _(z: Tensor, *rest: Any) -> Tensor:
    return like(z)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]
    ctx.table = output[0].shape
    ctx.set_materialize_grads(False)


def _back(ctx: Any, up: Tensor | None, up_u: Tensor | None) -> tuple[Tensor | None, ...]:
    asked = Asked(*ctx.settings)
    z, y, w, sample = ctx.saved_tensors
    nothing = (None,) * (3 + len(ctx.settings))
    up_u = up_u if asked.u else None  # compilers give zeros, of no size, for what was not asked for
    if up is None and up_u is None:
        return None, *nothing

    def by_kernels() -> Tensor:
        table = z.new_zeros(ctx.table, dtype=torch.float64) if up is None else up
        return cast(Tensor, pass_gradient(z, y, w, sample, table, up_u, *ctx.settings))

    def by_plain(further: bool) -> Tensor:
        return _by_torch(z, y, w, sample, up, up_u, asked, further)

    return gradient_of(by_kernels, by_plain, z, up, up_u), *nothing


pass_sums.register_autograd(_back, setup_context=_keep)


def _by_torch(
    z: Tensor, y: Tensor, w: Tensor | None, sample: Tensor | None, up: Tensor | None, up_u: Tensor | None, asked: Asked,
    further: bool,
) -> Tensor:  # fmt: skip
    task: Task = asked.task  # type: ignore[assignment]
    question = Pass(Problem(z, y, w, sample, task, asked.ignore), asked.want)
    by_name: dict[str | Curve, Tensor | None] = {}
    if up is not None:
        by_name = named(dict(zip(rows_of(asked, y.ndim < z.ndim), up.unbind(1), strict=True)), asked)
    constant = ("n", "t", "tt")
    return by_torch(
        question,
        {name: g for name, g in by_name.items() if name not in constant},
        up_u,
        further,
        every=asked.u == EVERY,
    )


def named(table: dict[Name, Tensor], asked: Asked) -> dict[str | Curve, Any]:
    """Rows by what they are: of a curve or a spread under a sigmoid no and yes side by side."""
    found: dict[str | Curve, Any] = {name: x for name, x in table.items() if isinstance(name, str)}
    for curve in asked.want.curves:
        labels = [table[curve, label] for label in (0, 1) if (curve, label) in table]
        found[curve] = labels[0] if len(labels) == 1 else torch.stack(labels, 2)
    if "spread no" in found:
        found["spread"] = torch.stack([found.pop("spread no"), found["spread"]], 2)
    return found
