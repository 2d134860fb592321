"""What the numbers of an explanation show, in a line each: why a loss is NaN, zero, negative, stuck or unbalanced."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .measure import Broken, Input, Measured, Term
from .views import IGNORED

_STUCK = 0.01  # the part of an undecided answer's gradient below which sure and wrong ones do not move
_UNBALANCED = 100.0


def diagnosis(value: float, found: Measured) -> list[str]:
    """The lines; none where nothing is wrong."""
    lines = [*_not_finite(value, found), *_nothing(value, found), *_negative(value, found)]
    for given in found.inputs:
        of_slot = [term for term in found.terms if term.slot == given.slot]
        lines += [*_stuck(given, of_slot), *_owned(given, of_slot), *_absent(given)]
    return lines


def _not_finite(value: float, found: Measured) -> Iterator[str]:
    counted = {name: b for name, b in found.broken.items() if b.counted}
    if not math.isfinite(value):
        what = "NaN" if math.isnan(value) else "infinite"
        terms = ", ".join(term.name for term in _single(found) if not math.isfinite(term.value))
        for name, b in counted.items():
            verb = "hold" if name.endswith("s") else "holds"
            yield f"{what}: the {name} {verb} {_of(b)}, the first at {b.first} ({terms})"
        if not counted:
            yield f"{what}: {terms or 'the sum'}, although all that is read is finite: a label or weight out of range?"
    for name, b in found.broken.items():
        if b.ignored and math.isfinite(value):
            yield f"of what is not finite in the {name}, {b.ignored:,} lie in what is ignored and do no harm"
    for term in _single(found):
        if term.broken is not None and math.isfinite(value):
            yield f"NaN gradient: that of {term.name} holds {_of(term.broken)}, the first at {term.broken.first}"


def _of(b: Broken) -> str:
    return " and ".join(f"{count:,} {name}" for count, name in ((b.nan, "NaN"), (b.inf, "inf")) if count)


def _single(found: Measured) -> list[Term]:
    return [term for term in found.terms if not term.total]


def _nothing(value: float, found: Measured) -> Iterator[str]:
    for given in found.inputs:
        if not given.counted:
            why = ", ".join(f"{reason}: {count:,}" for reason, count in given.ignored.items())
            yield f"zero: nothing counts: all {given.elements:,} {given.many} are ignored ({why or 'there are none'})"
    if value == 0 and all(given.counted for given in found.inputs):
        wrong = any(term.levels["wrong"].elements for term in found.terms)
        flat = all(term.norm == 0 for term in found.terms)
        if flat and wrong:
            yield "zero with wrong answers: the classes that the loss counts are not in the target, or are left out"
        elif flat:
            yield "zero: every answer is right, as far as the loss looks"


def _negative(value: float, found: Measured) -> Iterator[str]:
    for loss, below, lowest in found.negative:
        if math.isnan(lowest):
            yield f"negative: {loss} has a negative weight, {below:.4g} in all"
        elif lowest < 0:
            yield f"negative: {loss} is {below:.4g}, which this loss may be: lower is better, as it is above 0"
        else:
            yield f"negative: {loss} is {below:.4g}; with its default settings it would begin at {lowest:g}"


def _stuck(given: Input, terms: list[Term]) -> Iterator[str]:
    if not terms or terms[-1].broken is not None or not math.isfinite(terms[-1].value):
        return
    all_of_them = terms[-1]  # the total, where there are several
    wrong = int(all_of_them.levels["wrong"].elements)
    if wrong and all_of_them.pull == 0:
        why = "" if given.saturated is None else " (p saturated)"
        yield f"stuck: no gradient reaches any of {wrong:,} wrong {given.many}{why}"
    elif given.saturated is not None and given.saturated < _STUCK:
        yield (
            f"stuck: {wrong:,} wrong {given.many} are sure of themselves (p saturated), and have {given.saturated:.1g} "
            "of the gradient of undecided ones"
        )
    elif given.kind in ("boxes", "numbers") and all_of_them.still:
        yield f"stuck: {all_of_them.still:,} of {wrong:,} wrong {given.many} have no gradient"


def _owned(given: Input, terms: list[Term]) -> Iterator[str]:
    if not terms:
        return
    levels = terms[-1].levels
    if levels["easy"].share > 0.5 and levels["hard"].elements + levels["wrong"].elements > 0:
        yield f"easy {given.many} own {levels['easy'].share:.0%} of the gradient"
    if IGNORED in levels and levels[IGNORED].share > 0:
        yield f"ignored {given.many} own {levels[IGNORED].share:.0%} of the gradient: a term reads no labels"
    single = sorted((term for term in terms if not term.total), key=lambda term: -term.norm)
    if len(single) > 1 and 0 < single[-1].norm * _UNBALANCED < single[0].norm:
        times = single[0].norm / single[-1].norm
        yield f"unbalanced: the gradient of {single[0].name} is {times:,.0f} times that of {single[-1].name}"


def _absent(given: Input) -> Iterator[str]:
    if given.absent:
        some = ", ".join(given.absent[:12]) + (f" and {len(given.absent) - 12} more" if len(given.absent) > 12 else "")
        yield f"absent from the target: {'class' if len(given.absent) == 1 else 'classes'} {some}"
