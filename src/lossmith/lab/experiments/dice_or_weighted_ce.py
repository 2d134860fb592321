"""Claim 15: an open question of a document: does Dice beat class-weighted cross-entropy? Asked of the bacteria."""

from __future__ import annotations

from lossmith.lab.experiments.training.claim import Run, Trained


class DiceOrWeightedCE(Trained):
    """The lab's own comparison on `bacteria`: the same network, first weights, crops and learning rate (the usual 3e-3)
    for both losses, seed by seed, with weights of the classes counted from the training images. Judged by the pooled
    Dice of held-back frames and by the lab's decision rule: paired, with 95 % confidence. In full 4 seeds of 120 steps
    on whole frames, with 0.4 % foreground in training; the short form, 2 seeds of 20 steps on 256 px around the colony,
    four frames to train on and one to judge by, is not strongly imbalanced and shows how it is done.
    """

    name = "dice-or-weighted-ce"
    title = "Dice or class-weighted cross-entropy"
    claims = (15,)
    claim = "An open question of the document, asked as a claim: Dice beats class-weighted cross-entropy."
    document = "000"
    seconds = (10, 150)
    losses = ("dice", 'ce(class_weight="inverse")')
    imbalanced = True
    full = Run(seeds=4, steps=120, crop=96, batch=8)


EXPERIMENT = DiceOrWeightedCE()
