"""What a call hands over, two arguments or a pair for each input that is named, and what it gets back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from ..engine.tensors import distributed, everywhere, ordinary


def unwrapped(who: str, given: Any, formats: Collection[str] = (), shared: bool = False) -> Any:
    """What a call hands over, with its tensors as `ordinary` ones. Boxes that say themselves what their four numbers
    are must be what the losses take them for: one of `formats`. `shared`: by processes that each hand over a part."""
    if isinstance(given, tuple | list):
        inner = [unwrapped(who, x, formats, shared) for x in given]
        return inner if isinstance(given, list) else tuple(inner)
    if isinstance(given, dict):
        return {key: unwrapped(who, x, formats, shared) for key, x in given.items()}
    if shared and distributed(given):
        raise ValueError(
            f"{who}: a DTensor is a whole, and with a group each process hands over its part: give x.to_local() and "
            "gradient='sum', or leave the group out"
        )
    own = getattr(given, "format", None) if isinstance(given, Tensor) and type(given) is not Tensor else None
    said = str(getattr(own, "value", own)).lower()
    if formats and own is not None and said not in formats:
        taken = " and ".join(f"fmt={fmt!r}" for fmt in sorted(formats))
        raise ValueError(
            f"{who}: {type(given).__name__} in the format {said!r}, but the loss takes {taken}; "
            f"build it with fmt={said!r}, or convert the boxes"
        )
    return ordinary(given)


def by_slot(
    who: str, loss: object, names: list[str], inputs: tuple[Any, ...], call: dict[str, Any]
) -> dict[str, tuple[Any, ...]]:
    """(input, target) of each of the named inputs."""
    if inputs:
        for slot in call.keys() & set(names):
            raise TypeError(f"{who}: give {slot}=(input, target) or two arguments, not both")
        if len(names) > 1:
            shape = ", ".join(f"{slot}=(input, target)" for slot in names)
            raise TypeError(f"{loss!r} reads {len(names)} different inputs: call loss({shape})")
        if len(inputs) > 2:
            raise TypeError(f"{who}: takes logits and a target, got {len(inputs)} positional arguments")
        return {names[0]: (*inputs, None)[:2]}
    for slot in names:
        if slot not in call:
            hint = "call loss(logits, target)" if len(names) == 1 else f"give {slot}=(input, target)"
            raise TypeError(f"{who}: the input {slot!r} is missing; {hint}")
        if not isinstance(call[slot], tuple | list) or len(call[slot]) != 2:
            raise TypeError(f"{who}: {slot} must be a pair (input, target)")
    return {slot: tuple(call[slot]) for slot in names}


def returned(value: Tensor, inputs: tuple[Any, ...], call: dict[str, Any], slot: str) -> Tensor:
    """In float64 if the input is, else in float32; to a DTensor another."""
    first = inputs[0] if inputs else call[slot][0]
    return everywhere(value.to(torch.float64 if first.dtype == torch.float64 else torch.float32), first)
