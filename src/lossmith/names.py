"""Losses by name: the catalogue, and `parse`, which reads "dice + 0.5*focal(gamma=2)"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from .loss import CATALOGUE, Loss, Sum
from .losses.dense import Dense
from .losses.region import RegionLoss
from .papers import stated
from .schedule import Schedule, Weight, ramp
from .settings import nearest

ALIASES = {"bce": "ce", "iou": "jaccard"}
SHARED = {*Dense.fields, *RegionLoss.fields}  # what `parse` hands to every loss, and ignores where it means nothing


@dataclass(frozen=True)
class Row:
    """What the catalogue knows of a loss: its settings with their defaults, its (lowest, highest) value, its source."""

    name: str
    cls: type[Loss]
    family: str
    fields: dict[str, Any]
    range: tuple[float, float]
    paper: str
    summary: str


def catalogue() -> list[Row]:
    """Every loss that has a name, also those that a user's own code defined.

    >>> [row.name for row in catalogue() if row.family == "sorted"]
    ['lovasz', 'lovasz_hinge']
    """
    return [
        Row(name, cls, cls.family, dict(cls.fields), cls.range, cls.source, _summary(cls))
        for name, cls in CATALOGUE.items()
    ]


def _summary(cls: type[Loss]) -> str:
    return (cls.__doc__ or cls.name).strip().splitlines()[0]


def parse(text: str, **shared: Any) -> Loss:
    """The loss that a text describes.

    Names or class names, calls with keyword settings (numbers, strings, lists, none, true, false), `@paper` behind a
    name for the settings of its paper (see `Loss.paper`), numbers, `+`, `-`, `*`, parentheses, and
    `ramp(start=..., step=..., stop=...)` as a weight; ramps of one `name='a'` are one ramp. The repr of a loss reads
    back. Nothing is evaluated. A text has at most 100,000 characters, 1,000 losses, 64 levels.

    Args:
        text: for example "dice + 0.5*focal(gamma=2)".
        shared: settings for every loss in the text that has them and does not set them itself.

    Raises:
        ValueError: the text cannot be read, or its losses cannot be added; the message points at the character.
        TypeError: a setting or a value that a loss does not take; also a shared setting that no loss has.

    >>> parse("dice + 0.5*focal(gamma=3)", ignore_index=255)
    DiceLoss(ignore_index=255) + 0.5 * FocalLoss(gamma=3, ignore_index=255)
    >>> parse("focal@paper(gamma=3) + tversky@paper")
    FocalLoss(gamma=3, alpha=0.25) + TverskyLoss(smooth=0.0)
    """
    if not isinstance(text, str):
        raise TypeError(f"parse reads a text such as 'dice + ce', got {type(text).__name__}")
    loss = _Parser(text, shared).read()
    own = {setting for _, term in [*loss.addends, *loss.terms] for setting in term.keywords}
    for setting in shared.keys() - own - SHARED:
        known = own | {setting for cls in CATALOGUE.values() for setting in cls.keywords}
        hint = f"none of {loss!r} does" if setting in known else nearest(setting, known)
        raise TypeError(f"no loss here has a setting {setting!r}; {hint}")
    return loss


_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<string>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>[-+*(),=@\[\]]))"
)


def _known(word: str) -> type[Loss] | None:
    """The loss of this name, alias or class name."""
    return CATALOGUE.get(ALIASES.get(word, word)) or {cls.__name__: cls for cls in CATALOGUE.values()}.get(word)


_CONSTANTS = {"none": None, "true": True, "false": False}
_DEEPEST = 64
_LONGEST = 100_000  # characters: a matrix of 150 classes fits
_MOST_LOSSES = 1_000
_MOST_DIGITS = 300  # of an integer: as many as a float has
_TWO_SCHEDULES = "a schedule times a schedule is not supported"
_ALGEBRA = "losses are added to losses and multiplied by numbers"


class _Term(NamedTuple):
    """A loss with its weight, or a weight alone."""

    weight: Weight
    loss: Loss | None = None


def _scheduled(loss: Loss | None) -> bool:
    return loss is not None and any(isinstance(weight, Schedule) for weight, _ in loss.addends)


class _Parser:
    """Recursive descent over `sum := product (± product)*`, `product := signed (* signed)*`, `signed := -* atom`.

    Numbers are worked out as they come; losses are collected, and added once where their parenthesis closes.
    """

    def __init__(self, text: str, shared: dict[str, Any]) -> None:
        self.text, self.shared = text, shared
        self.tokens: list[tuple[str, str, int]] = []
        self.at = self.depth = self.losses = 0
        self.ramps: dict[str, Schedule] = {}
        if len(text) > _LONGEST:
            raise ValueError(f"a text of {len(text):,} characters is too long: at most {_LONGEST:,}")
        end = len(text.rstrip())
        position = 0
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                start = position + len(text[position:]) - len(text[position:].lstrip())
                self._fail(start, f"unexpected {text[start]!r}")
            kind = str(match.lastgroup)
            if kind == "string" and not match[kind].isprintable():
                self._fail(match.start(kind), f"a 'string' has printable characters only, got {match[kind]!r}")
            self.tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()
        self.tokens.append(("end", "", end))

    def read(self) -> Loss:
        if len(self.tokens) == 1:
            self._fail(0, "no loss here; write for example 'dice + 0.5*focal(gamma=2)'")
        weight, loss = self._sum()
        kind, word, position = self.tokens[self.at]
        if kind != "end":
            self._fail(position, f"unexpected {word!r}")
        if loss is None:
            self._fail(0, "this is a number, not a loss")
        return loss if weight == 1 else self._added([_Term(weight, loss)], 0)

    def _sum(self) -> _Term:
        start = self.tokens[self.at][2]
        terms = [self._product()]
        while self._peek() in ("+", "-"):
            _, sign, position = self._next()
            weight, loss = self._product()
            weight = -weight if sign == "-" else weight
            if (loss is None) != (terms[0].loss is None):
                self._fail(position, f"cannot apply {sign!r} here: {_ALGEBRA}")
            if loss is None:
                terms = [_Term(self._number(position, sign, terms[0].weight, weight))]
            else:
                terms.append(_Term(weight, loss))
        return terms[0] if len(terms) == 1 else _Term(1.0, self._added(terms, start))

    def _added(self, terms: list[_Term], start: int) -> Loss:
        try:
            return Sum([(weight, loss) for weight, loss in terms if loss is not None])
        except (TypeError, ValueError) as error:
            self._refused(error, start)

    def _product(self) -> _Term:
        weight, loss = self._signed()
        while self._peek() == "*":
            position = self._next()[2]
            by, other = self._signed()
            if loss is not None and other is not None:
                self._fail(position, f"cannot apply '*' here: {_ALGEBRA}")
            weight, loss = self._number(position, "*", weight, by), loss or other
            if (other is not None or isinstance(by, Schedule)) and isinstance(weight, Schedule) and _scheduled(loss):
                self._fail(position, f"cannot apply '*' here: {_TWO_SCHEDULES}")
        return _Term(weight, loss)

    def _signed(self) -> _Term:
        minus = False
        while self._peek() == "-":
            self._next()
            minus = not minus
        weight, loss = self._atom()
        return _Term(-weight if minus else weight, loss)

    def _number(self, position: int, sign: str, a: Any, b: Any) -> Weight:
        """a · b, or a + b, where the sign may be that of a b turned round before."""
        try:
            result: Weight = a * b if sign == "*" else a + b
        except TypeError:
            problem = _TWO_SCHEDULES if sign == "*" else "a sum of schedules is not supported"
            self._fail(position, f"cannot apply {sign!r} here: {problem}")
        return result

    def _atom(self) -> _Term:
        kind, word, position = self._next()
        if kind == "number":
            return _Term(float(word))
        if word == "(":
            self._deeper(position)
            term = self._sum()
            self._close(")")
            return term
        if kind != "name":
            self._fail(position, f"expected a loss or a number, got {word!r}" if word else "the text ends too early")
        if word == "ramp":
            return _Term(self._ramp(position))
        return _Term(1.0, self._loss(word, position))

    def _ramp(self, position: int) -> Schedule:
        settings = self._settings() if self._peek() == "(" else {}
        name = settings.pop("name", None)
        if not isinstance(name, str | None):
            self._fail(position, f"the name of a ramp is a 'string', got {name!r}")
        try:
            new = ramp(**settings)
        except TypeError:
            self._fail(position, "write ramp(start=0.01, step=0.01, stop=1.0)")
        except ValueError as error:
            self._fail(position, str(error))
        if name is None:
            return new
        known = self.ramps.setdefault(name, new)
        if repr(known) != repr(new):
            self._fail(position, f"the ramp {name!r} is {known!r} elsewhere in this text")
        return known

    def _loss(self, word: str, position: int) -> Loss:
        as_in_paper = self._peek() == "@" and self._paper()
        settings = self._settings() if self._peek() == "(" else {}
        cls = _known(word)
        if cls is None:
            self._fail(position, f"no loss is called {word!r}; {nearest(word, {*CATALOGUE, *ALIASES})}")
        self.losses += 1
        if self.losses > _MOST_LOSSES:
            self._fail(position, f"too many losses: at most {_MOST_LOSSES:,}")
        extra = {k: v for k, v in self.shared.items() if k in cls.keywords}
        try:
            return cls(**{**extra, **(stated(cls.name, cls.__name__) if as_in_paper else {}), **settings})
        except (TypeError, ValueError) as error:
            self._refused(error, position)

    def _paper(self) -> bool:
        """Reads the `@paper` behind a loss."""
        self._expect("@")
        _, word, position = self._next()
        if word != "paper":
            self._fail(position, "behind '@' stands 'paper', for the settings of the paper: focal@paper")
        return True

    def _settings(self) -> dict[str, Any]:
        self._deeper(self._expect("("))
        settings: dict[str, Any] = {}
        while self._peek() != ")":
            kind, name, position = self._next()
            if kind != "name" or self._peek() != "=":
                self._fail(position, "settings are written as name=value")
            self._expect("=")
            if name in settings:
                self._fail(position, f"{name} is set twice")
            settings[name] = self._constant()
            if self._peek() != ")":
                self._expect(",")
        self._close(")")
        return settings

    def _constant(self) -> Any:
        kind, word, position = self._next()
        if kind == "number":
            whole = not re.search(r"[.eE]", word)
            if whole and len(word) > _MOST_DIGITS:
                self._fail(position, f"an integer of {len(word):,} digits is too large: at most {_MOST_DIGITS}")
            return int(word) if whole else float(word)
        if word == "-" and self._kind() == "number":
            return -self._constant()
        if kind == "string":
            return word[1:-1]
        if kind == "name" and word.lower() in _CONSTANTS:
            return _CONSTANTS[word.lower()]
        if kind == "name" and _known(word):
            return self._loss(word, position)
        if word in ("[", "("):
            self._deeper(position)
            close = {"[": "]", "(": ")"}[word]
            items = []
            while self._peek() != close:
                items.append(self._constant())
                if self._peek() != close:
                    self._expect(",")
            self._close(close)
            return items
        self._fail(position, "a value is a number, a 'string', a [list], none, true or false")

    def _kind(self) -> str:
        return self.tokens[self.at][0]

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self._kind() == "sign" else ""

    def _next(self) -> tuple[str, str, int]:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def _expect(self, sign: str) -> int:
        _, word, position = self._next()
        if word != sign:
            self._fail(position, f"expected {sign!r}" + (f", got {word!r}" if word else ", but the text ends"))
        return position

    def _deeper(self, position: int) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            self._fail(position, f"nested too deeply: at most {_DEEPEST} levels")

    def _close(self, sign: str) -> None:
        self._expect(sign)
        self.depth -= 1

    def _refused(self, error: TypeError | ValueError, position: int) -> NoReturn:
        """What a loss says, with the place that it says it of."""
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{error}\n{self._pointer(position)}") from None

    def _fail(self, position: int, message: str) -> NoReturn:
        raise ValueError(f"{message}\n{self._pointer(position)}")

    def _pointer(self, position: int) -> str:
        start = self.text.rfind("\n", 0, position) + 1
        line = "".join(c if c.isprintable() else " " for c in self.text[start:].partition("\n")[0])
        return f"  {line}\n  {' ' * (position - start)}^"
