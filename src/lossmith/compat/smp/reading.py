"""What the losses of segmentation_models_pytorch have in common: modes, shapes, probabilities, weights of classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...checks import shape
from ...engine.problem import Task
from ...inputs.call import unwrapped
from ..peer import Peer, logits_of, numbers

BINARY_MODE, MULTICLASS_MODE, MULTILABEL_MODE = "binary", "multiclass", "multilabel"

Numbers = Sequence[float] | Tensor | None
MODE = {
    "mode": "task; 'multiclass' needs two channels",
    "from_logits": "False: p.logit(), which refuses what is no probability",
    "ignore_index": "ignore_index, of single elements where mode is no 'multiclass'",
}
REFUSES = {
    "from_logits=False, numbers beyond [0, 1]": "they are no probabilities; from_logits=True takes logits",
}


class Moded(Peer):
    """A loss of a prediction (N, C, *S) and a target: labels (N, *S) or (N, 1, *S), or with mode="multilabel" a map
    shaped like the prediction.

    Raises:
        AssertionError: a mode that there is not. ValueError: weights of classes with one; without from_logits, numbers
            that are no probabilities; shapes that do not fit.
    """

    def __init__(self, mode: str, ignore_index: int | None, from_logits: bool, class_weights: Numbers = None) -> None:
        super().__init__()
        if mode not in (BINARY_MODE, MULTICLASS_MODE, MULTILABEL_MODE):
            raise AssertionError(f"{self._who()}: mode must be 'binary', 'multiclass' or 'multilabel', got {mode!r}")
        if class_weights is not None and mode == BINARY_MODE:
            raise ValueError(f"{self._who()}: class_weights have no effect with mode='binary', one class; drop them")
        self.mode, self.ignore_index, self.from_logits = mode, ignore_index, from_logits
        self.class_weights = None if class_weights is None else numbers(class_weights)

    def task(self, channels: int) -> Task:
        """What the channels are: probabilities given as such need no softmax."""
        exclusive = self.mode == MULTICLASS_MODE and self.from_logits
        return "binary" if channels == 1 else "multiclass" if exclusive else "multilabel"

    def read(self, y_pred: Tensor, y_true: Tensor) -> tuple[Tensor, Tensor]:
        """The call as ours takes it: logits (N, C, P) and labels (N, P) or a map (N, C, P)."""
        y_pred, y_true = unwrapped(self._who(), (y_pred, y_true))
        n = len(y_pred)
        if len(y_true) != n:
            raise AssertionError(f"{self._who()}: {n} predictions and {len(y_true)} targets; there must be as many")
        channels = 1 if self.mode == BINARY_MODE else y_pred.shape[1]
        if channels == 1 and self.mode == MULTICLASS_MODE:
            raise ValueError(f"{self._who()}: a softmax of one channel is 1 everywhere; use mode='binary'")
        wanted = y_pred.numel() // (channels if self.mode == MULTICLASS_MODE else 1)
        if y_true.numel() != wanted:
            raise ValueError(
                f"{self._who()}: with mode={self.mode!r} the target must hold {wanted} elements, one for each "
                f"{'pixel' if self.mode == MULTICLASS_MODE else 'element'} of {shape(y_pred)}, got {shape(y_true)}"
            )
        logits = y_pred if self.from_logits else logits_of(self._who(), y_pred, "logits want from_logits=True")
        target = y_true.reshape(n, -1) if self.mode == MULTICLASS_MODE else y_true.reshape(n, channels, -1)
        return logits.reshape(n, channels, -1), target

    def weights(self, channels: int) -> list[float]:
        """One for each class."""
        if self.class_weights is None:
            return [1.0] * channels
        if len(self.class_weights) != channels:
            raise ValueError(f"{self._who()}: {len(self.class_weights)} class_weights for {channels} classes")
        weights: list[float] = self.class_weights
        return weights
