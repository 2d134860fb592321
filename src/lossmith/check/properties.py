"""What is asked of a loss: each a small function of the loss, logits and labels that gives the fault it sees, if any.

Logits are float64 (N, C, *S). Labels are (N, *S), or a yes or no (N, C, *S) in each channel.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .smallest import Fault
from .subject import Subject, first_line, gradient_of

Ask = Callable[[Subject, Tensor, Tensor], Fault | None]
Needs = Literal["ignored", "weight", "names", "state", ""]
EXACT = 1e-5  # relative: a loss may compute in float32
ROUNDED = 0.01  # relative: half precision
MANY = 2**17  # pixels, the sum of which passes 65504, the largest float16


@dataclass(frozen=True)
class Property:
    name: str
    means: str
    ask: Ask
    needs: Needs = ""
    ignoring: bool = False  # whether some of its labels are those of ignored pixels
    slow: bool = False


PROPERTIES: list[Property] = []


def means(text: str, **more: Any) -> Callable[[Ask], Ask]:
    def add(ask: Ask) -> Ask:
        PROPERTIES.append(Property(ask.__name__, text, ask, **more))
        return ask

    return add


# ---- what holds of any call ------------------------------------------------------------------------------------------


@means("the same call gives the same value")
def repeatable(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    return differ(loss, f"{loss.code()}, {loss.code()}", loss.value(z, y), loss.value(z, y))


@means("logits and target are left as they were")
def inputs_unchanged(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    ours, target = z.clone(), loss.target(y, z).clone()
    before = target.clone()
    loss.raw(ours, target)
    changed = [name for name, now, then in (("logits", ours, z), ("target", target, before)) if not alike(now, then)]
    given = {"z": z, "y": before}
    return Fault(f"changes the {changed[0]}", f"{loss.code()}; z, y", given) if changed else None


@means("value and gradient of transposed, sliced and channels-last logits are those of contiguous ones")
def non_contiguous(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    value, gradient = loss.both(z, y)
    layouts = {
        "z.transpose(0, -1).contiguous().transpose(0, -1)": z.transpose(0, -1).contiguous().transpose(0, -1),
        "z.movedim(1, -1).contiguous().movedim(-1, 1)": z.movedim(1, -1).contiguous().movedim(-1, 1),
        "z.repeat_interleave(2, -1)[..., ::2]": z.repeat_interleave(2, -1)[..., ::2],
    }
    for text, other in layouts.items():
        found, slope = loss.both(other, y)
        fault = differ(loss, f"{loss.code(text)}, {loss.code()}", found, value)
        fault = fault or differ(loss, f"{loss.code(text)}, {loss.code()}", slope, gradient, "gradient")
        if fault:
            return Fault(fault.seen, fault.code, given_of(loss, z, y))
    return None


@means("pickled and read again, it returns the same value", needs="state")
def pickling(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    code = f"pickle.loads(pickle.dumps(loss)){loss.code().removeprefix('loss')}, {loss.code()}"
    expected = loss.value(z, y)
    try:
        again = pickle.loads(pickle.dumps(loss.loss))
    except Exception as error:  # whatever its parts raise
        return raised(error, code, given_of(loss, z, y))
    return differ(loss, code, again(z, loss.target(y, z), **loss.keywords).reshape(()), expected)


# ---- numbers ---------------------------------------------------------------------------------------------------------


@means("float16 and bfloat16 logits, also of 131,072 pixels: the float64 value to 1 %, and a finite gradient")
def half_precision(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    axis = -1 if z.ndim > 2 else 0
    z, y = (z[:1], y[:1]) if axis else (z, y)
    for n in (1, -(-MANY * z.shape[1] // z.numel())):
        for dtype in (torch.float16, torch.bfloat16):
            narrow, name = z.to(dtype), str(dtype).removeprefix("torch.")
            wide, labels = narrow.repeat_interleave(n, axis), y.repeat_interleave(n, axis)
            exact, (value, gradient) = loss.value(wide.double(), labels), loss.both(wide, labels)
            right = near(value, exact, ROUNDED, 1e-3)
            if right and gradient.isfinite().all():
                continue
            given = given_of(loss, narrow, y)
            many = {key: f"{key}.repeat_interleave({n}, {axis})" for key in given}
            code = loss.code(**many) if n > 1 else loss.code()
            if right:
                return Fault(f"a gradient in {name} that is not finite", of_gradient(code), given, f"gradient {n > 1}")
            return Fault(f"{said(value)} in {name} instead of {said(exact)}", code, given, f"value {n > 1}")
    return None


@means("value and gradient are finite for logits of ±10,000 in float32")
def large_logits(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    return finite(loss, 1e4 * z.sign().float(), y)


@means("value and gradient are finite for images without foreground, or with nothing else, also where it is certain")
def empty(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    for label in (0, 1):
        alone = torch.full_like(y, label)
        if z.shape[1] == 1 or y.ndim == z.ndim:
            certain = torch.full_like(z, 200.0 * label - 100)
        else:
            certain = torch.full_like(z, -100.0)
            certain[:, label] = 100.0
        for logits in (z, certain):
            fault = finite(loss, logits, alone)
            if fault:
                return fault
    return None


@means("value and gradient are finite for a batch without samples")
def no_samples(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    return finite(loss, z[:0], y[:0])


@means("NaN in the logits of a pixel that counts makes the value NaN: a broken network is seen")
def nan_visible(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    broken = z.clone()
    broken.view(-1)[0] = math.nan
    value = loss.value(broken, y)
    return None if value.isnan() else Fault(f"{said(value)}, not NaN", loss.code(), given_of(loss, broken, y))


# ---- meaning ---------------------------------------------------------------------------------------------------------


@means("where every pixel is ignored the value is finite and the gradient 0", needs="ignored")
def all_ignored(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    hidden = torch.full_like(y, loss.ignored or 0)
    fault = finite(loss, z, hidden)
    if fault:
        return fault
    _, gradient = loss.both(z, hidden)
    code = of_gradient(loss.code())
    return Fault("has a gradient", code, given_of(loss, z, hidden)) if gradient.any() else None


@means("logits of ignored pixels, NaN too, change nothing, and their gradient is 0", needs="ignored", ignoring=True)
def ignored_inert(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    hidden = y.eq(loss.ignored or 0)
    if hidden.all():
        return None
    hidden = hidden.expand(z.shape) if hidden.ndim == z.ndim else hidden.unsqueeze(1).expand(z.shape)
    value, gradient = loss.both(z, y)
    if gradient[hidden].any():
        seen = f"the gradient there is up to {said(gradient[hidden].abs().max())}"
        return Fault(seen, of_gradient(loss.code()), given_of(loss, z, y))
    for filler in (7.0, 1e4, math.inf, math.nan):
        other = z.masked_fill(hidden, filler)
        found, slope = loss.both(other, y)
        given = given_of(loss, z, y) | {"other": other}
        for kind, a, b in (("value", found, value), ("gradient", slope, gradient)):
            fault = differ(loss, f"{loss.code('other')}, {loss.code()}", a, b, kind)
            if fault:
                return Fault(f"{fault.seen}, with {filler:g} in ignored pixels", fault.code, given)
    return None


@means("ignoring the last columns is cutting them off", needs="ignored")
def ignoring_is_deleting(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    axis = -1 if z.ndim > 2 else 0
    n = z.shape[axis]
    if n < 2:
        return None
    kept = n - n // 2
    hidden = y.clone()
    hidden.narrow(axis, kept, n - kept).fill_(loss.ignored or 0)
    short_z, short_y = z.narrow(axis, 0, kept).clone(), y.narrow(axis, 0, kept).clone()
    value, gradient = loss.both(z, hidden)
    cut, slope = loss.both(short_z, short_y)
    given = given_of(loss, z, hidden) | {"cut_z": short_z, "cut_y": loss.target(short_y, short_z)}
    code = f"{loss.code()}, {loss.code('cut_z', 'cut_y')}"
    fault = differ(loss, code, value, cut) or differ(loss, code, gradient.narrow(axis, 0, kept), slope, "gradient")
    return Fault(fault.seen, code, given) if fault else None


@means("other names for the classes change nothing: none is treated apart", needs="names")
def relabelling(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    order = torch.arange(z.shape[1], dtype=torch.int64, device=z.device).roll(1)
    other = z[:, order]
    renamed = y[:, order] if y.ndim == z.ndim else order.argsort()[y]
    given = given_of(loss, z, y) | {"other_z": other, "other_y": loss.target(renamed, other)}
    code = f"{loss.code()}, {loss.code('other_z', 'other_y')}"
    fault = differ(loss, code, loss.value(z, y), loss.value(other, renamed))
    return Fault(fault.seen, code, given) if fault else None


@means("a sample of weight 2 counts as the sample twice", needs="weight")
def weight_2_is_repeating(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    if len(z) < 2:
        return None
    weight = z.new_ones(len(z))
    weight[-1] = 2
    twice = [*range(len(z)), len(z) - 1]
    name = str(loss.weight)
    code = f"{loss.code(**{name: 'weight'})}, {loss.code('twice_z', 'twice_y')}"
    given = given_of(loss, z, y) | {"weight": weight, "twice_z": z[twice], "twice_y": loss.target(y[twice], z)}
    fault = differ(loss, code, loss.value(z, y, **{name: weight}), loss.value(z[twice], y[twice]))
    return Fault(fault.seen, code, given) if fault else None


# ---- torch -----------------------------------------------------------------------------------------------------------


@means("the gradient is that of the value: differences of nearby values say the same, to 0.1 %")
def gradcheck(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    _, gradient = loss.both(z, y)
    code = of_gradient(loss.code())
    return slope_fault(lambda x: loss.value(x, y).double(), z, gradient, code, given_of(loss, z, y))


@means("the second derivative is that of the gradient, to 0.1 %")
def double_backward(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    along = direction(z, 9)
    given = given_of(loss, z, y) | {"v": along}
    code = "g, = torch.autograd.grad({}, z, create_graph=True); torch.autograd.grad((g * v).sum(), z)"

    def slope(x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.detach().requires_grad_()
        return (gradient_of(loss.value(x, y), x, create_graph=True) * along).sum()

    x = z.clone().requires_grad_()
    return slope_fault(slope, z, gradient_of(slope(x), x), code.format(loss.code("z.requires_grad_()")), given)


@means("torch.func.vmap of its gradient gives the gradient of each sample")
def vmap(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    expected = torch.cat([loss.both(z[i : i + 1], y[i : i + 1])[1] for i in range(len(z))])
    inner = loss.code("z[None]", "y[None]")
    code, given = f"torch.func.vmap(torch.func.grad(lambda z, y: {inner}))(z, y)", given_of(loss, z, y)

    def one(z: Tensor, y: Tensor) -> Tensor:
        value: Tensor = loss.raw(z[None], y[None])
        return value.reshape(())

    try:
        found = torch.func.vmap(torch.func.grad(one))(z, loss.target(y, z))
    except Exception as error:  # whatever the code of the loss raises
        return raised(error, code, given)
    fault = differ(loss, code, found, expected, "gradient")
    return Fault(fault.seen, code, given) if fault else None


@means("torch.compile takes it without a graph break and gives the same value", slow=True)
def compiles(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    expected, given = loss.value(z.float(), y), given_of(loss, z.float(), y)
    code = f"torch.compile(loss, fullgraph=True, backend='aot_eager'){loss.code().removeprefix('loss')}"
    torch.compiler.reset()
    try:
        compiled: Callable[..., Tensor] = torch.compile(loss.loss, fullgraph=True, backend="aot_eager")
        found = compiled(z.float(), loss.target(y, z.float()), **loss.keywords)
    except Exception as error:  # whatever the compiler does not take
        return raised(error, code, given)
    return differ(loss, code, found.reshape(()), expected)


# ---- comparing -------------------------------------------------------------------------------------------------------


def said(x: Tensor) -> str:
    return f"{float(x):.4g}"


def of_gradient(call: str) -> str:
    return f"torch.autograd.grad({call.replace('loss(z', 'loss(z.requires_grad_()', 1)}, z)"


def given_of(loss: Subject, z: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"z": z, "y": loss.target(y, z)}


def raised(error: Exception, code: str, given: dict[str, Tensor]) -> Fault:
    kind = type(error).__name__
    return Fault(f"raises {kind}: {first_line(error)}", code, given, kind)


def alike(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def near(a: Tensor, b: Tensor, relative: float, least: float) -> bool:
    """To a part of the largest number in them; NaN is near NaN."""
    a, b = a.double(), b.double()
    size = max(float(b.abs().max()) if b.numel() else 0.0, least)
    return bool((((a - b).abs() <= relative * size) | (a == b) | (a.isnan() & b.isnan())).all())


def differ(loss: Subject, code: str, a: Tensor, b: Tensor, kind: str = "value") -> Fault | None:
    """That two values, or gradients, that should be one are two; on the tensors of the last call."""
    if near(a, b, EXACT, 1e-3):
        return None
    far = (a.double() - b.double()).abs()
    differences = f"differ by up to {said(far.max())}" if far.isfinite().all() else "differ, and one is not finite"
    seen = f"{said(a)} and {said(b)}" if a.numel() == 1 and kind == "value" else f"the gradients {differences}"
    return Fault(seen, code, dict(zip("zy", loss.last, strict=True)))


def finite(loss: Subject, z: Tensor, y: Tensor) -> Fault | None:
    value, gradient = loss.both(z, y)
    if value.isfinite() and gradient.isfinite().all():
        return None
    if not value.isfinite():
        return Fault(f"the value is {said(value)}", loss.code(), given_of(loss, z, y))
    broken = gradient[~gradient.isfinite()][0]
    seen = f"the value is {said(value)}, the gradient has {said(broken)}"
    return Fault(seen, of_gradient(loss.code()), given_of(loss, z, y), "gradient")


def direction(z: Tensor, seed: int) -> Tensor:
    return torch.empty_like(z).normal_(generator=torch.Generator(z.device).manual_seed(seed))


def slope_fault(
    value: Callable[[Tensor], Tensor], z: Tensor, gradient: Tensor, code: str, given: dict[str, Tensor]
) -> Fault | None:
    """That the change along some direction is not what the gradient says, at no width of the step."""
    for seed in (0, 1):
        along = direction(z, seed)
        expected = (gradient.double() * along.double()).sum().detach()
        found = [
            (value(z + step * along) - value(z - step * along)).detach() / (2 * step) for step in (1e-5, 1e-3, 1e-2)
        ]
        if not any(near(one, expected, 1e-3, 1e-3) for one in found):
            return Fault(
                f"{said(expected)} by the derivative along a direction, {said(found[0])} by differences", code, given
            )
    return None
