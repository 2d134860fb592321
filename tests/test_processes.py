"""Any split of a batch over processes, micro-batches or slabs is the whole batch: value and gradient, for every loss.

A loss that is added to the catalogue is tried as it is. The processes are real, with gloo between them; there is one
pool of them.
"""

from __future__ import annotations

import copy
import pickle
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lossmith as ls
import process_cases as cases
from lossmith.losses.dense import ClassLoss, Dense
from problems import (
    IGNORE,
    MANY,
    PAIRS,
    PROBLEMS,
    ROWS,
    arguments,
    labels_of,
    logits_of,
    with_rows,
)
from process_cases import Call
from processes import Pool
from splits import cut, cuts, drawn, in_space, near, parts_of, slab

DRAWS = 3  # of each loss; test_splits.py has more
OTHERS = [(row, name) for row, name in PAIRS if not issubclass(row.cls, Dense)]


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    made = Pool(3)
    yield made
    made.close()


def compare(pool: Pool, members: int, wholes: list[Call], splits: list[list[Call]], axis: int = 0, **how: Any) -> None:
    """That every process has the value of the whole, and the gradients together are its gradient."""
    found = pool.run(members, cases.makes, splits, how)
    factor = 1 if how.get("gradient") == "sum" else members
    for i, whole in enumerate(wholes):
        value, gradient = whole.made()
        values = [made[i][0] for made in found]
        own = torch.cat([made[i][1] for made in found], axis) / factor
        about = f"{whole.name} {whole.settings} {list(whole.keywords)} {[tuple(p.inputs[0].shape) for p in splits[i]]}"
        if value.ndim:  # what is not reduced: the images of each process, or one group that all of them share
            shared = whole.settings.get("per_image", True) is False and issubclass(type(whole.loss()), ClassLoss)
            assert all(near(v, value) for v in values) if shared else near(torch.cat(values), value), about
            continue
        assert all(near(v, value) for v in values), f"{about}: {values} for {value}"
        assert near(own, gradient), f"{about}: {(own - gradient).abs().max()}"


@pytest.mark.parametrize("members", [2, 3])
@with_rows()
@pytest.mark.one_in(4)
def test_any_split_by_images_is_the_whole_batch(pool, row, members):
    draw = random.Random(zlib.crc32(f"{row.name} {members}".encode()))
    wholes = [drawn(row, draw) for _ in range(DRAWS)]
    splits = [parts_of(whole, cuts(draw, len(whole.inputs[0]), members)) for whole in wholes]
    compare(pool, members, wholes, splits)


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize(("row", "task"), OTHERS, ids=lambda x: getattr(x, "name", x))
def test_boxes_and_distributions_too(pool, row, task, members):
    draw = random.Random(members)
    build, inputs, given = arguments(row, task)
    del build
    double = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
    wholes, splits = [], []
    for reduction in ("mean", "sum") if "reduction" in row.cls.fields else ("",):
        for keywords in ({}, {"weight": given["weight"].double()}):
            whole = Call(row.name, {"reduction": reduction} if reduction else {}, double, keywords)
            for at in ([0, *[0] * (members - 1), 6], cuts(draw, 6, members)):
                wholes.append(whole)
                splits.append(parts_of(whole, at))
    compare(pool, members, wholes, splits)


def test_counts_that_happen_to_be_one_object(pool):
    """Python has one 8 but many 400s: what is asked must not follow from that."""
    a, b = logits_of(102, 4), logits_of(102, 4, seed=1)
    whole = Call("l1 + l2 + smooth_l1", {}, (a, b), {})
    compare(pool, 2, [whole], [parts_of(whole, [0, 2, 102])])


def test_what_is_asked_does_not_follow_from_values(pool):
    """Ignored pixels, soft labels, weights, nothing at all: with one process only."""
    z, y = batch()
    hidden = y.clone()
    hidden[0, 0] = 255
    soft = torch.nn.functional.one_hot(y, 3).movedim(-1, 1).double()
    texts = {"border_ce + entropy": hidden, "distance_penalty + border_ce + dice": hidden, "boundary_ce + entropy": y}
    wholes = [Call(text, IGNORE, (z, target), {}) for text, target in texts.items()]
    splits = [parts_of(whole, at) for whole in wholes for at in ([0, 1, 4], [0, 0, 4])]
    compare(pool, 2, [whole for whole in wholes for _ in range(2)], splits)
    text, settings = "dice(squared=true) + dice(per_image=false) + wce", {"task": "multiclass"}
    parts = [Call(text, settings, (z[:, :, :2], y[:, :2]), {}), Call(text, settings, (z[:, :, 2:], soft[:, :, 2:]), {})]
    compare(pool, 2, [Call(text, settings, (z, y), {})], [parts], axis=2, split="space")


@pytest.mark.parametrize("text", ["topk", "ohem", "lovasz", "lovasz(exact=true)", "topk(reduction='none')"])
def test_nothing_valid_anywhere(pool, text):
    z, y = batch()
    whole = Call(text, IGNORE, (z, torch.full_like(y, 255)), {})
    empty = Call(text, IGNORE, (z[:0], y[:0]), {})
    compare(pool, 2, [whole, empty], [parts_of(whole, [0, 1, 4]), parts_of(empty, [0, 0, 0])])


def test_a_dtensor_and_a_group_are_refused(pool):
    assert all("give x.to_local() and gradient='sum'" in said for said in pool.run(2, cases.whole_dtensor, *batch()))


@with_rows()
def test_any_split_in_space_is_the_whole_volume(pool, row):
    """Slabs along the first axis of space; where a loss looks at neighbours, it says what it needs."""
    draw = random.Random(zlib.crc32(row.name.encode()))
    wholes, splits = [], []
    while len(wholes) < DRAWS:
        whole = drawn(row, draw, [p for p in PROBLEMS if p.axes > 1])
        if whole.settings.get("reduction") == "none":
            continue
        whole, parts = in_space(row, whole, cuts(draw, whole.inputs[0].shape[2], 2))
        wholes.append(whole)
        splits.append(parts)
    if "space" not in row.cls.splits:
        text = pool.run(2, cases.refuses, splits[0][0], {"split": "space"})
        assert all(row.cls.halo and row.cls.halo in said for said in text)
        return
    compare(pool, 2, wholes, splits, axis=2, split="space")


def batch(count: int = 4) -> tuple[Tensor, Tensor]:
    return logits_of(count, 3, 6, 5), labels_of(3, count, 6, 5, ignore=False)


def halves(count: int = 4, at: tuple[int, ...] = (0, 3, 4)) -> list[tuple[Tensor, Tensor]]:
    z, y = batch(count)
    return list(zip(cut(z, list(at)), cut(y, list(at)), strict=True))


def test_a_split_without_a_map_says_which_is_missing(pool):
    (z, y), _ = halves()
    for name, keyword in {"boundary": "distance=", "border_ce": "gap="}.items():
        text = pool.run(2, cases.refuses, Call(name, {}, (z, y), {}), {"split": "space"})
        assert all(keyword in said and "split='space'" in said for said in text)
    two_sided = Call("hausdorff", {}, (z, y), {"distance": torch.zeros_like(z)})
    assert all("one_sided=True" in said for said in pool.run(2, cases.refuses, two_sided, {"split": "space"}))


def test_trainers_that_add_gradients_up(pool):
    z, y = batch()
    whole = Call("dice + ce + lovasz + ohem(min_kept=20)", {}, (z, y), {})
    compare(pool, 2, [whole], [parts_of(whole, [0, 1, 4])], gradient="sum")


def test_the_world(pool):
    z, y = batch()
    found = pool.run(3, cases.world, "dice(per_image=false)", halves(4, (0, 1, 1, 4)))
    assert all(near(value, ls.parse("dice(per_image=false)")(z, y)) for value in found)


def test_parts(pool):
    text = "dice(per_image=false) + 0.5*ce + boundary"
    whole = ls.parse(text).parts(*batch(), per_class=True)
    for found in pool.run(2, cases.parts_of, text, halves()):
        assert found.keys() == whole.keys()
        assert all(near(found[name], whole[name]) for name in whole)


KERNELS = [
    ("dice(per_image=false) + ce + focal + lovasz(per_image=true, bins=8)", {}),
    ("lovasz(bins=8) + ce", {}),
    ("lovasz(bins=8)", {"weight": torch.tensor([0.5, 2.0, 0.0, 3.0])}),
    ("lovasz(bins=8, per_image=true)", {"weight": logits_of(4, 6, 5).abs().float()}),
    ("lovasz(bins=8)", {"weight": logits_of(4, 6, 5).abs().float()}),
]


@pytest.mark.parametrize("how", [{}, {"split": "space"}], ids=["images", "space"])
@pytest.mark.parametrize("at", [[0, 3, 4], [0, 4, 4]], ids=str)
@pytest.mark.parametrize(("text", "keywords"), KERNELS, ids=range(len(KERNELS)))
def test_kernels(pool, text, keywords, at, how):
    """In float32 they answer, and the same; of nothing too."""
    z, y = batch()
    whole = Call(text, {}, (z.float(), y), keywords)
    value, gradient = whole.made()
    split = parts_of(whole, at)
    if how:
        at = [0, at[1], 6]
        split = [
            Call(
                text,
                {},
                (cut(z.float(), at, 2)[r], cut(y, at, 1)[r]),
                {k: slab(k, x, z, at, r) for k, x in keywords.items()},
            )
            for r in range(2)
        ]
    found = pool.run(2, cases.with_kernels, [split], "fused", how)
    assert all(torch.allclose(made[0][0], value, rtol=1e-5) for made in found)
    own = torch.cat([made[0][1] for made in found], 2 if how else 0) / 2
    assert torch.allclose(own, gradient, rtol=1e-4, atol=1e-7)


def test_kernels_of_margins(pool):
    z, y = logits_of(4, 3, 6, 5).float(), labels_of(4, 4, 6, 5)
    whole = Call("lovasz_hinge(per_image=false, bins=16)", MANY | IGNORE, (z, y), {})
    value, gradient = whole.made()
    found = pool.run(2, cases.with_kernels, [parts_of(whole, [0, 1, 4])], "fused", {})
    assert all(torch.allclose(made[0][0], value, rtol=1e-5) for made in found)
    assert torch.allclose(torch.cat([made[0][1] for made in found]) / 2, gradient, rtol=1e-4, atol=1e-7)


# ---- how often the others are asked ----------------------------------------------------------------------------------

ONCE = "dice + dice(per_image=false) + ce + focal + tversky + gdl(per_image=false) + power_ce + wce + boundary"
ASKED = {
    ONCE: ["all_reduce"],
    f"{ONCE} + lovasz(per_image=true)": ["all_reduce"],
    "ohem(thresh=0.9, min_kept=1)": ["all_reduce"],
    f"{ONCE} + lovasz(bins=16)": ["all_reduce", "all_reduce"],
    f"{ONCE} + lovasz(exact=true) + lovasz(bins=16) + topk + ohem(thresh=0.01)": ["all_reduce", "all_gather"],
    "entropy + nonadjacency(forbidden=[[0, 1, 0], [0, 0, 1], [1, 0, 0]])": ["all_reduce"],
}


@pytest.mark.parametrize("text", ASKED, ids=range(len(ASKED)))
def test_all_terms_ask_at_once(pool, text):
    for forward, backward in pool.run(2, cases.collectives, text, halves()):
        assert forward == ASKED[text]
        assert backward == []


def test_all_heads_ask_at_once(pool):
    z, y = batch()
    heads = [z, z[..., ::2, ::2]]
    loss = ls.DeepSupervision(ls.parse("dice(per_image=false) + ce"))
    parts = [([head[a:b] for head in heads], y[a:b]) for a, b in ((0, 3), (3, 4))]
    for value, asked in pool.run(2, cases.supervised, parts):
        assert near(value, loss(heads, y))
        assert asked == ["all_reduce"]


# ---- training --------------------------------------------------------------------------------------------------------

TRAINED = "dice(per_image=false) + ce + lovasz(per_image=true)"


def images() -> tuple[Tensor, Tensor]:
    return logits_of(5, 1, 6, 5, seed=7), labels_of(3, 5, 6, 5, ignore=False)


@pytest.mark.parametrize("how", ["plain", "unused", "no_sync", "hooks", "compiled"])
def test_data_parallel_training(pool, how):
    value, gradients = cases.step(TRAINED, *images())
    for found, own in pool.run(2, cases.ddp, TRAINED, [0, 2, 5], *images(), how):
        assert near(found, value)
        assert all(near(a, b) for a, b in zip(gradients, own, strict=True))


def test_accumulation_in_every_process(pool):
    text = "dice(per_image=false) + ce + gdl + power_ce"
    value, gradients = cases.step(text, *images())
    for found, own in pool.run(2, cases.accumulated, text, [0, 2, 5], *images()):
        assert near(found, value)
        assert all(near(a, b) for a, b in zip(gradients, own, strict=True))


def test_accumulation_with_buffers_that_matter(pool):
    """DistributedDataParallel hands the first process's round before a step; both passes go by the same."""
    found = pool.run(2, cases.moving, [0, 1, 5], *images())
    assert found[0] == found[1]


def test_logits_that_are_a_dtensor(pool):
    z, y = batch(5)
    whole = Call("dice(per_image=false) + ce", {}, (z, y), {})
    value, gradient = whole.made()
    for found, slope in pool.run(2, cases.sharded, whole.name, z, y):
        assert near(found, value)
        assert near(slope, gradient)


def test_the_recipes_of_the_page(pool):
    page = (Path(__file__).parent.parent / "docs/scale.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    assert all(pool.run(3, cases.page, blocks))


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_who_never_comes(pool):
    text = pool.run(2, cases.alone, "dice + ce", halves()[0], 1.5)[0]
    assert "DiceLoss + CrossEntropyLoss: a process of the group did not take part" in text
    assert "the group's timeout of 1.5 s" in text


def test_who_dies(pool):
    with pytest.raises(AssertionError) as caught:
        pool.run(2, cases.dying, "dice + ce", halves()[0])
    assert "process 1 ended" in str(caught.value)
    assert "RuntimeError: DiceLoss + CrossEntropyLoss: a process of the group did not take part" in str(caught.value)


def test_second_derivatives_that_need_the_others_are_refused(pool):
    found = pool.run(2, cases.second_derivative, "dice(per_image=false)", halves())
    assert all("second derivative" in text for text in found)


def test_second_derivatives_of_sums_over_images(pool):
    z, y = batch()
    z.requires_grad_()
    (slope,) = torch.autograd.grad(ls.parse("dice + ce")(z, y), z, create_graph=True)
    slope.square().sum().backward()
    found = pool.run(2, cases.second_derivative, "dice + ce", halves())
    assert near(torch.cat(found) / 4, z.grad)  # a gradient here is twice its share, and squared


def test_transforms_are_refused(pool):
    assert all("transforms of torch.func" in text for text in pool.run(2, cases.transformed, halves()[0]))


def test_copies_keep_the_group(pool):
    assert all(pool.run(2, cases.kept, halves()[0]))


def test_no_processes():
    with pytest.raises(RuntimeError, match=r"DiceLoss: group='world' .*init_process_group"):
        ls.DiceLoss(group="world")(*batch())


def test_terms_agree_on_the_group():
    with pytest.raises(ValueError, match="the terms of a sum must agree on group: dice has 'world', ce has None"):
        ls.DiceLoss(group="world") + ls.CrossEntropyLoss()
    with pytest.raises(ValueError, match="the terms of a sum must agree on split"):
        ls.DiceLoss(group="world", split="space") + ls.CrossEntropyLoss(group="world")
    with pytest.raises(TypeError, match=r"group must be .*'world'.* got 3"):
        ls.DiceLoss(group=3)


def test_a_loss_of_ones_own_has_to_say_that_it_is_exact():
    class Own(ls.DiceLoss, part="own"):
        def value(self, batch):
            return batch.sums.fp.sum()

    class Scaled(ls.CrossEntropyLoss, part="scaled"):
        def scale(self, batch, class_weight):
            return batch.events[0].u.mean()

    class Formula(ls.DiceLoss, part="formula"):
        def formula(self, s):
            return s.fp / s.n

    for cls in (Own, Scaled):
        with pytest.raises(ValueError, match=rf"{cls.__name__}: it does not say that it is exact .*`splits`"):
            cls(group="world")(*batch())
        cls()(*batch())
    with pytest.raises(RuntimeError, match="init_process_group"):  # of sums alone
        Formula(group="world")(*batch())


def test_the_group_of_a_sum_is_that_of_its_terms():
    loss = ls.parse("dice + ce")
    loss.group = "world"
    with pytest.raises(ValueError, match="a sum shares a batch as its terms do"):
        loss(*batch())
    loss = ls.parse("dice + ce")
    loss.terms[1][1].group = "world"
    with pytest.raises(ValueError, match="the terms of a sum must agree on group"):
        loss(*batch())


def test_the_box_of_gfl_shares_as_gfl_does():
    loss = ls.GeneralizedFocalLoss(group="world", gradient="sum", box=ls.CIoULoss())
    assert [(term.group, term.gradient) for _, term in (2 * loss).terms] == [("world", "sum")] * 3
    assert repr(ls.parse(repr(loss))) == repr(loss)
    with pytest.raises(ValueError, match="its box shares the batch otherwise"):
        ls.GeneralizedFocalLoss(box=ls.CIoULoss(group="world"))


def test_what_was_pickled_before_there_were_groups():
    loss = ls.parse("dice + 0.5*focal")
    for module in loss.modules():
        if isinstance(module, ls.Loss):
            for name in ("group", "gradient", "split"):
                module._given.pop(name, None)
                module.__dict__.pop(name, None)
    again = pickle.loads(pickle.dumps(loss))
    assert torch.equal(again(*batch()), ls.parse("dice + 0.5*focal")(*batch()))
    assert repr(copy.deepcopy(again)) == "DiceLoss() + 0.5 * FocalLoss()"


def test_what_is_split_in_space_is_a_fact_of_the_class():
    for row in ROWS:
        if "space" not in row.cls.splits and row.family != "sum":
            assert row.cls.halo, f"{row.name} cannot be split in space, and does not say what it would need"


def test_nothing_is_imported_without_a_group():
    code = """
import sys, torch
before = set(sys.modules)
import lossmith as ls
ls.parse("dice + ce + lovasz")(torch.randn(2, 3, 4, 4, requires_grad=True), torch.zeros(2, 4, 4).long()).backward()
print([name for name in set(sys.modules) - before if "distributed" in name])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# ---- broken on purpose -----------------------------------------------------------------------------------------------

PROCESSES, ORDER = "lossmith.engine.processes", "lossmith.engine.plain.order"
MUTANTS = [
    (PROCESSES, "lambda: dist.all_reduce(total, group=group)", "lambda: None"),
    (PROCESSES, "lambda: dist.all_gather(rows, flat.detach().contiguous(), group=group)", "lambda: None"),
    (PROCESSES, 'if self.gradient == "mean" else 1', "if False else 1"),
    (PROCESSES, "return upstream * factor", "return upstream"),
    (PROCESSES, "rows = [values.detach() if r == rank else", "rows = [values.detach() if r == 0 else"),
    (PROCESSES, "columns = [row[..., :count] for", "columns = [row for"),
    (PROCESSES, "start = sum(item.counts[:rank])", "start = 0"),
    (ORDER, "F.pad(valid, (0, 1)).amax(-1)", "valid.amax(-1)"),
    (ORDER, "if here is None or sum(counts) <= ranking.bins:", "if here is None:"),
    (ORDER, "told[:, 1:].amax(0).view_as(here.span)", "here.span"),
    (
        ORDER,
        "return Across((Own(value),), lambda own: (losses + (own - own.detach()), foreground))",
        "return losses + (value - value.detach()), foreground",
    ),
    (
        "lossmith.inputs.groups",
        "return self.measured.complete and self.images.split is None",
        "return self.measured.complete",
    ),
]


def everything() -> tuple[list[Call], list[list[Call]]]:
    """Calls that have all kinds of sums, some of them of processes with nothing."""
    z, y = batch()
    hinge = Call("lovasz_hinge(per_image=false, bins=16)", MANY | IGNORE, (z, labels_of(4, 4, 6, 5)), {})
    hidden = y.clone()
    hidden[:1, :3] = 255  # one process has all of its pixels, the other has not
    texts = [
        TRAINED,
        "lovasz",
        "lovasz(bins=16)",
        "topk(reduction='none')",
        "ohem(thresh=0.01, min_kept=30)",
        "power_ce",
    ]
    wholes = [Call(text, {}, (z, y), {}) for text in texts] + [Call("ce + dice", IGNORE, (z, hidden), {}), hinge]
    pairs = [(whole, parts_of(whole, at)) for whole in wholes for at in ([0, 0, 4], [0, 1, 4])]
    return [whole for whole, _ in pairs], [parts for _, parts in pairs]


def test_nothing_is_broken(pool):
    wholes, splits = everything()
    assert not differing(wholes, pool.run(2, cases.makes, splits, {}))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("module", "old", "new"), MUTANTS, ids=range(len(MUTANTS)))
def test_mutants_die(pool, module, old, new):
    for whole, parts in zip(*everything(), strict=True):  # one by one: after an error in one process others would wait
        found = pool.run(2, cases.mutated, module, old, new, cases.makes, [parts], {})
        if any(isinstance(made, str) for made in found) or differing([whole], found):
            return
    raise AssertionError("it lives")


def differing(wholes: list[Call], found: list[list[tuple[Tensor, ...]]]) -> bool:
    for i, whole in enumerate(wholes):
        value, gradient = whole.made()
        own = torch.cat([made[i][1] for made in found]) / 2
        if value.ndim:
            if not near(torch.cat([made[i][0] for made in found]), value):
                return True
        elif not all(near(made[i][0], value) for made in found) or not near(own, gradient):
            return True
    return False
