"""Deep supervision: one loss on the outputs of a network at several resolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .engine.images import bind, together
from .engine.tensors import indices
from .loss import Loss
from .plan import Plan
from .schedule import number

Target = Tensor | Sequence[Tensor] | None


class DeepSupervision(nn.Module):
    """A weighted mean of one loss over the heads of a network: Σ_h w_h L(logits_h, target_h) / Σ_h w_h.

    The target is brought to the resolution of each head by taking, for each pixel of the head, the pixel of the target
    that its centre falls into: pixel i of n takes pixel ⌊(2i + 1) m / 2n⌋ of m (torch's "nearest-exact", in integers).
    No label is converted, averaged or invented, and the ignored stay ignored. Weights per pixel and maps given in the
    call are read at the same pixels; the values of a `distance` stay in the units of the full resolution. A
    `label_mask` belongs to images, not to pixels. Where a list has a target for each head, these are taken as they are.

    Args:
        loss: any loss or sum of losses that reads one input, with reduction "mean" or "sum".
        weights: one number >= 0 for each head, the finest first; only their ratios matter. A head of weight 0 is not
            computed: NaN there does no harm, and its parameters get no gradient (DDP must be told:
            `find_unused_parameters=True`). None: 1, ½, ¼, …

    Raises:
        TypeError, ValueError: weights that are negative, all 0 or too large to be added; a loss that cannot be averaged
            over heads.

    Limits: objects smaller than a coarse head's pixel can vanish from its target.
    Paper: Lee et al., "Deeply-supervised nets", AISTATS 2015, arXiv 1409.5185.

    >>> import torch, lossmith as ls
    >>> supervised = ls.DeepSupervision(ls.DiceLoss() + ls.CrossEntropyLoss())
    >>> heads = [torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 8, 8)]
    >>> target = torch.zeros(2, 16, 16, dtype=torch.uint8)
    >>> round(supervised(heads, target).item(), 4)
    1.9159
    >>> list(supervised.parts(heads, target))
    ['head0.dice', 'head0.ce', 'head1.dice', 'head1.ce']
    """

    def __init__(self, loss: Loss, weights: Iterable[float] | None = None) -> None:
        super().__init__()
        if not isinstance(loss, Loss):
            raise TypeError(f"DeepSupervision: loss must be a loss of this library, got {type(loss).__name__}")
        if len({term.slot for _, term in loss.terms}) > 1:
            raise ValueError(f"DeepSupervision: the loss must read one input, but {loss!r} reads several")
        if any(term.reduction == "none" for _, term in loss.terms):
            raise ValueError(f"DeepSupervision: {loss!r} has reduction='none', and heads of several sizes have no mean")
        self.loss = loss
        self.weights = None if weights is None else _checked(weights)

    def forward(self, outputs: Sequence[Tensor], target: Target = None, **call: Any) -> Tensor:
        """The loss of all heads.

        Args:
            outputs: a list of logits (N, C, *S_h), the finest first.
            target: as the loss takes it, at any resolution: labels (N, *S) or (N, 1, *S), a map (N, C, *S). Or a list
                of such, one for each output and at its resolution.
            call: the loss's own keywords. Those with the axes of a target must have its size S, and go with it; others,
                such as a `weight` per sample or a `label_mask`, go to every head as they are. Beside a list of targets
                a keyword may be a list too; if it is not, S is the size of the first target. `denominator` is refused:
                heads have different numbers of pixels.

        Raises:
            TypeError: outputs that are not a list. One stacked tensor (N, heads, C, *S) is `outputs.unbind(1)`.
            ValueError: a number of outputs other than that of the weights or targets, a coarse output before a finer.
        """
        plan = self.loss._plan()
        if plan.processes is None:
            heads = list(self._heads(outputs, target, call))
            return _mean([weight for _, weight, *_ in heads], [self.loss(*given, **more) for *_, given, more in heads])
        value: Tensor = plan.settled(self.pending(plan, (outputs, target), call))
        return value

    def pending(self, plan: Plan, inputs: tuple[Any, ...], call: dict[str, Any]) -> Any:
        """The loss, or an `Across` that it follows from where others hold a part of the batch."""
        outputs, target = (*inputs, None)[:2]
        heads = list(self._heads(outputs, target, call))
        values = together([self.loss.pending(plan, given, options) for _, _, given, options in heads])
        return bind(values, lambda found: _mean([weight for _, weight, *_ in heads], found))

    def parts(
        self, outputs: Sequence[Tensor], target: Target = None, *, per_class: bool = False, **call: Any
    ) -> dict[str, Tensor]:
        """The weighted terms of every head as "head0.dice", detached, for the log; they add up to the loss."""
        plan, heads = self.loss._plan(), list(self._heads(outputs, target, call))
        with torch.no_grad():
            parts = [self.loss.pending_parts(plan, given, options, per_class) for _, _, given, options in heads]
            found = plan.settled(together(parts))
        return {
            f"head{number}.{name}": weight * value
            for (number, weight, *_), named in zip(heads, found, strict=True)
            for name, value in named.items()
        }

    def step(self) -> None:
        """Advances the schedules of the loss; call it once an epoch."""
        self.loss.step()

    def _heads(
        self, outputs: Sequence[Tensor], target: Any, call: dict[str, Any]
    ) -> Iterator[tuple[int, float, tuple[Tensor, ...], dict[str, Any]]]:
        """(number, share, inputs, keywords) of every head that counts."""
        axes = _checked_outputs(outputs)
        weights = [0.5**h for h in range(len(outputs))] if self.weights is None else self.weights
        if len(weights) != len(outputs):
            raise ValueError(f"DeepSupervision: {len(weights)} weights need as many outputs, got {len(outputs)}")
        if "denominator" in call:
            raise TypeError("DeepSupervision: takes no denominator, heads have different numbers of pixels")
        targets, own = _head_by_head(target, call, len(outputs))
        maps = {k: v for k, v in call.items() if k != "label_mask" and _has_axes(v, axes)}
        whole = target if targets is None else targets[0]
        for name, value in maps.items():
            if isinstance(whole, Tensor) and _space(value, axes) != _space(whole, axes):
                raise ValueError(
                    f"DeepSupervision: {name} {tuple(value.shape)} and the target {tuple(whole.shape)} "
                    f"must have the same size in their last {axes} axes"
                )
        for head, (weight, logits) in enumerate(zip(weights, outputs, strict=True)):
            if weight > 0:
                size = logits.shape[2:]
                options = call | {k: sampled(v, size) for k, v in maps.items()} | {k: v[head] for k, v in own.items()}
                if targets is not None:
                    inputs: tuple[Any, ...] = (logits, targets[head])
                elif target is None:
                    inputs = (logits,)
                else:
                    inputs = (logits, sampled(target, size) if _has_axes(target, axes) else target)
                yield head, weight / sum(weights), inputs, options

    def __repr__(self) -> str:
        weights = "" if self.weights is None else f", weights={self.weights!r}"
        return f"DeepSupervision({self.loss!r}{weights})"


def _mean(shares: list[float], values: list[Tensor]) -> Tensor:
    first, *rest = (share * value for share, value in zip(shares, values, strict=True))
    return sum(rest, first)


def _head_by_head(target: Any, call: dict[str, Any], heads: int) -> tuple[Sequence[Any] | None, dict[str, Any]]:
    """The target and the keywords that are lists, with an entry for each head."""
    if not isinstance(target, list | tuple):
        return None, {}
    own = {name: given for name, given in call.items() if isinstance(given, list | tuple)}
    for name, given in {"targets": target, **own}.items():
        if len(given) != heads:
            many = name if name == "targets" else f"of {name}"
            raise ValueError(f"DeepSupervision: {heads} outputs need as many {many}, got {len(given)}")
    return target, own


def _has_axes(x: Any, axes: int) -> bool:
    """Whether this is (N, *S) or (N, K, *S) with this number of axes S."""
    return isinstance(x, Tensor) and x.ndim - axes in (1, 2)


def _space(x: Tensor, axes: int) -> tuple[int, ...]:
    return tuple(x.shape[x.ndim - axes :])


def sampled(x: Tensor, size: torch.Size) -> Tensor:
    """The last axes of x at another size, each read at the pixels that the centres of the new pixels fall into."""
    for axis, n in enumerate(size, start=x.ndim - len(size)):
        m = x.shape[axis]
        if m != n:
            x = x.index_select(axis, (2 * indices(n, x) + 1) * m // (2 * n))
    return x


def _checked(weights: Iterable[float]) -> list[float]:
    given = list(weights) if isinstance(weights, Iterable) and not isinstance(weights, str) else [None]
    numbers = [x for x in map(number, given) if x is not None]
    if len(numbers) < len(given):
        raise TypeError(f"DeepSupervision: weights must be a list of numbers, one per head, got {weights!r}")
    if not all(w >= 0 for w in numbers) or not 0 < sum(numbers) < math.inf:
        raise ValueError(
            "DeepSupervision: weights must be numbers >= 0, one per head, not all 0 and with a finite sum, "
            f"got {weights!r}"
        )
    return numbers


def _checked_outputs(outputs: Any) -> int:
    """The number of spatial axes of the heads."""
    if isinstance(outputs, Tensor):
        raise TypeError(
            f"DeepSupervision: outputs must be a list of logits, the finest first, got one tensor "
            f"{tuple(outputs.shape)}; a stack (N, heads, C, *S) is outputs.unbind(1), and a network that has only one "
            "output (in evaluation) takes the loss itself"
        )
    if not isinstance(outputs, list | tuple) or not all(isinstance(x, Tensor) and x.ndim >= 2 for x in outputs):
        raise TypeError("DeepSupervision: outputs must be a list of logits (N, C, *S), the finest first")
    shapes = [tuple(x.shape) for x in outputs]
    if not shapes:
        raise ValueError("DeepSupervision: there are no outputs")
    if len({len(shape) for shape in shapes}) > 1:
        raise ValueError(f"DeepSupervision: outputs must have the same number of axes, got {shapes}")
    for fine, coarse in pairwise(shapes):
        if any(a < b for a, b in zip(fine[2:], coarse[2:], strict=True)):
            raise ValueError(f"DeepSupervision: outputs must come the finest first, got {coarse} after {fine}")
    return len(shapes[0]) - 2
