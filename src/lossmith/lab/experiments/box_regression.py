"""Claim 7: which box losses bring boxes to their targets, by the simulation of the DIoU paper."""

from __future__ import annotations

import math
from typing import Any

from lossmith.lab.experiment import ByHand, Data, Experiment, Figure, Finding, Table, Verdict, Work
from lossmith.lab.experiments.boxes import walk
from lossmith.lab.page.panels import DASHES, Chart, Panel, Series, colours

_LOSSES = ("iou", "giou", "diou", "ciou")
_FORMS = {"published": "the script's gradients", "true": "true gradients"}
_PAIRS = (("diou", "giou"), ("ciou", "giou"), ("ciou", "diou"))  # who is shown against whom
FULL_POINTS, FAST_POINTS = 1000, 40
_CLEAR = 2.0  # standard errors
_STALLED = 0.1  # of the error at the start, still there at the end


class BoxRegression(Experiment):
    """Boxes walk to their targets by gradient descent on a loss alone: the protocol of Zheng et al. 2020, arXiv
    1911.08287, with fewer anchor points (40 in the short form, else 1,000) of 343 cases each, totals scaled to the
    paper's 1,715,000 cases, ± the standard error over anchor points. Once with the losses' own gradients, once with
    those of the authors' script; the true ones are judged, each part of the claim by itself. IoU's pull on a box apart
    from its target should be 0, and GIoU's not. GIoU stalls if it does not pull on the centre of a box inside its
    target, and a tenth of the starting error is left after 200 iterations. DIoU and CIoU converge faster if each is
    ahead of GIoU, by more than two standard errors, after 30, 100, 160 and 200 iterations. With all three parts the
    claim is confirmed, with two it is confirmed with a correction, else refuted. lossmith lab box-regression has more
    options and a page of its own.
    """

    name = "box-regression"
    title = "Boxes that walk to their targets"
    claims = (7,)
    claim = (
        "IoU loss gives no gradient to disjoint boxes; GIoU does but stalls when one box contains the other; DIoU and "
        "CIoU converge faster."
    )
    document = "002"
    correction = (
        "IoU gives disjoint boxes no gradient. GIoU does not stall: it does not pull on the centre of a box inside its "
        "target, but it moves the sides, and its error falls to nearly nothing. With the losses' own gradients DIoU is "
        "behind GIoU for most of the way and at the end, and CIoU is behind it first and ahead later. “Faster” is what "
        "the authors' script shows, whose gradients are not those of the losses."
    )
    seconds = (10, 60)

    def compute(self, work: Work) -> Data:
        points = walk.draw_points(FAST_POINTS if work.fast else FULL_POINTS, seed=0)
        runs = [walk.form_run(loss, form) for loss in _LOSSES for form in _FORMS]
        done, total = 0, walk.CASES_PER_POINT * len(points) * len(runs)

        def watch(cases: int) -> None:
            nonlocal done
            done += cases
            work.watch(done, total)

        courses, stopped = walk.simulate(points, runs, watch)
        if stopped:
            raise KeyboardInterrupt
        return self.data_of(courses, points, list(_FORMS))

    @staticmethod
    def data_of(courses: dict[walk.Run, walk.Course], points: walk.Array, forms: list[str]) -> Data:
        """What is judged, of courses that hold these forms for these anchor points."""
        found: dict[str, Any] = {"points": len(points), "disjoint": walk.disjoint_share(points), "runs": {}}
        found["start"] = walk.start_error(points) / 1e6
        for form in forms:
            found["runs"][form] = {}
            for loss in _LOSSES:
                course = courses[walk.form_run(loss, form)]
                at = {str(k): (course.at(k) / 1e6).tolist() for k in walk.MARKS}
                found["runs"][form][loss] = {"totals": (course.scaled() / 1e6).tolist(), "at": at}
        inside = (walk.CENTRE + 0.2, walk.CENTRE + 0.1, 0.4, 0.4, 1.0, 1.0)  # cx, cy, w, h of a box in its target
        apart = (walk.CENTRE + 3, walk.CENTRE, 1.0, 1.0, 1.0, 1.0)
        for name, box in (("pull_inside", inside), ("pull_apart", apart)):
            found[name] = {loss: math.hypot(*walk.descent(walk.LOSSES.index(loss), 0, *box)[:2]) for loss in _LOSSES}
        return found

    @staticmethod
    def _lead(data: Data, form: str, ahead: str, behind: str, k: int) -> tuple[float, float]:
        """By how many million one total is below another on the same points, and the standard error."""
        runs = data["runs"][form]
        pairs = [b - a for a, b in zip(runs[ahead]["at"][str(k)], runs[behind]["at"][str(k)], strict=True)]
        mean, count = sum(pairs) / len(pairs), len(pairs)
        variance = sum((pair - mean) ** 2 for pair in pairs) / (count - 1) if count > 1 else math.inf
        return mean, math.sqrt(variance / count)

    def _ahead(self, data: Data, form: str, loss: str, k: int) -> bool:
        """Whether a loss is ahead of GIoU."""
        lead, error = self._lead(data, form, loss, "giou", k)
        return lead > _CLEAR * error

    def judge(self, data: Data) -> Finding:
        form = "true" if "true" in data["runs"] else "published"
        inside, apart = data["pull_inside"], data["pull_apart"]
        giou, ciou = (data["runs"][form][loss]["totals"] for loss in ("giou", "ciou"))
        none = apart["iou"] == 0 < apart["giou"]
        stalls = inside["giou"] < 1e-9 and giou[-1] > _STALLED * data["start"]
        faster = all(self._ahead(data, form, loss, k) for loss in ("diou", "ciou") for k in walk.MARKS[1:])
        held = none + stalls + faster
        verdict: Verdict = "confirmed" if held == 3 else "confirmed with a correction" if held == 2 else "refuted"
        since = 1 + max((k for k, (c, g) in enumerate(zip(ciou, giou, strict=True), 1) if c >= g), default=0)

        def against_giou(loss: str) -> str:
            leads = [self._lead(data, form, loss, "giou", k) for k in walk.MARKS[1:]]
            said = (f"{'ahead' if lead > 0 else 'behind'} by {abs(lead):.3f} ± {error:.3f}" for lead, error in leads)
            return ", ".join(said)

        return Finding(
            verdict,
            f"With {_FORMS[form]} the claim holds in {held} of 3 parts. IoU gives disjoint boxes no gradient: "
            f"{_holds(none)}, its pull on one is {apart['iou']:.3f}, GIoU's {apart['giou']:.3f}. GIoU stalls: "
            f"{_holds(stalls)}, its pull on the centre of a box inside its target is {inside['giou']:.3f} (DIoU's "
            f"{inside['diou']:.3f}), and its total error goes from {data['start']:.3f} to {giou[-1]:.3f} million. DIoU "
            f"and CIoU converge faster: {_holds(faster)}, against GIoU, after {', '.join(map(str, walk.MARKS[1:]))} "
            f"iterations, DIoU is {against_giou('diou')} million, and CIoU {against_giou('ciou')}; CIoU's "
            f"total {f'stays below from iteration {since} on' if since <= len(ciou) else 'ends above'}.",
        )

    def draw(self, data: Data) -> list[Figure]:
        colour = colours(list(_LOSSES))
        panels = []
        for form, runs in data["runs"].items():
            series = [
                Series(list(range(1, 201)), run["totals"], colour[loss], loss, width=2.2, dash=DASHES[i])
                for i, (loss, run) in enumerate(runs.items())
            ]
            title = _FORMS[form].capitalize()
            panels.append(Panel(series, title=title, x_title="iteration", y_title="error, millions", from_zero=True))
        legend = {loss: (colour[loss], DASHES[i]) for i, loss in enumerate(_LOSSES)}
        caption = (
            f"The error of the same boxes after each iteration; before the first it is {data['start']:.3f} million."
        )
        return [Figure("totals", caption, Chart(panels, legend))]

    def tables(self, data: Data) -> list[Table]:
        head = ["", *(f"iteration {k}" for k in walk.MARKS)]
        totals, leads = [], []
        for form, runs in data["runs"].items():
            for loss, run in runs.items():
                totals.append([f"{loss}, {form}", *(f"{run['totals'][k - 1]:.3f}" for k in walk.MARKS)])
            for a, b in _PAIRS:
                cells = ["{:.3f} ± {:.3f}".format(*self._lead(data, form, a, b, k)) for k in walk.MARKS]
                leads.append([f"{a} against {b}, {form}", *(cell.replace("-", "−") for cell in cells)])
        return [
            Table("Total error in millions", head, totals),
            Table("How far ahead (−: behind), in millions", head, leads),
        ]

    def by_hand(self, data: Data) -> ByHand:
        code = """import torch, lossmith as ls
box = torch.tensor([[10.2, 10.1, 0.4, 0.4]], dtype=torch.float64, requires_grad=True)  # inside a unit target
ls.DIoULoss(fmt="cxcywh")(box, torch.tensor([[10.0, 10.0, 1.0, 1.0]], dtype=torch.float64)).backward()
print(f"DIoU's {box.grad[0, :2].norm():.3f}")"""
        return ByHand(code, f"DIoU's {data['pull_inside']['diou']:.3f}")


def _holds(part: bool) -> str:
    return "holds" if part else "fails"


EXPERIMENT = BoxRegression()
