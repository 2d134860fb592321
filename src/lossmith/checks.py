"""What every input must be, whoever takes it: the errors name the loss, the thing and the fix."""

from __future__ import annotations

import math
import numbers
from typing import Any

from torch import Tensor

from .engine.images import Count
from .engine.tensors import can_look

Denominator = Tensor | float | Count | None


def kind(x: Any) -> Any:
    """What an error calls a value that has the wrong type."""
    return x.dtype if isinstance(x, Tensor) else type(x).__name__


def shape(x: Tensor) -> tuple[int, ...]:
    """As an error prints it."""
    return tuple(x.shape)


def floating(who: str, name: str, x: Any, hint: str = "", *, many: bool = False) -> None:
    """A tensor of floating-point numbers; `many`: where the name stands for several tensors."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = "floating-point tensors" if many else "a floating-point tensor"
        raise TypeError(f"{who}: {name} must be {what}, got {kind(x)}{hint}")


def real(who: str, name: str, x: Any, hint: str = "") -> None:
    """A tensor of anything but complex numbers."""
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"{who}: {name} must be a real tensor, got {kind(x)}{hint}")


def together(who: str, name: str, x: Tensor, other: str, y: Tensor) -> None:
    """Two tensors on one device; `name` says "logits are" or "the input is"."""
    if y.device != x.device:
        raise ValueError(f"{who}: {name} on {x.device}, the {other} on {y.device}; move one of them")


def weights(who: str, x: Any, name: str, given: Tensor) -> None:
    """Weights >= 0 beside what they weigh; values are looked at where that is free."""
    real(who, "weight", x)
    together(who, name, given, "weight", x)
    if can_look(x) and bool((x < 0).any()):
        raise ValueError(f"{who}: weights must be >= 0, got {float(x.min()):g}")


def denominator(who: str, given: Denominator) -> Denominator:
    """One number, not negative; a tensor on an accelerator is taken as it is."""
    if given is None or isinstance(given, Count):
        return given
    if isinstance(given, Tensor) and given.numel() == 1 and not given.is_complex():
        given = given.detach().reshape(())
        fits = not can_look(given) or bool((given >= 0) & given.isfinite())
    else:
        fits = isinstance(given, numbers.Real) and 0 <= given < math.inf
    if not fits:
        single = not isinstance(given, Tensor) or given.ndim == 0
        more = ", which would make every loss 0" if single and given == math.inf else ""
        raise ValueError(f"{who}: the denominator must be one number >= 0, got {given!r}{more}")
    return given
