"""The formula of every loss of the catalogue, as LaTeX, and what its letters stand for.

A line is a formula of its own. Letters that mean the same in several losses are explained in `LETTERS`, and `WHERE`
says which of them a loss has; `MEANING` is about the letters of one loss alone.
"""

from __future__ import annotations

_P = r"\frac{I}{U}"

FORMULAS: dict[str, tuple[str, ...]] = {
    # pixel
    "ce": (
        r"\ell = u = -\ln p_t",
        r"\ell = (1 - \varepsilon)\, u + \frac{\varepsilon}{K} \sum_{k} (-\ln p_k)"
        r" \qquad \text{with label smoothing } \varepsilon",
    ),
    "focal": (r"\ell = \alpha_t \, (1 - p_t)^{\gamma} \, u",),
    "power_ce": (r"\ell = w_l \, u^{\gamma}, \qquad w_l = \sqrt{\frac{\sum_k f_k}{f_l}}",),
    "conservative": (r"\ell = \lambda \, (1 + \log_a p_t)^2 \, \bigl| \log_a (-\log_a p_t) \bigr|",),
    "quadratic": (
        r"\ell = \frac{1}{2 C} \sum_{k} (p_k - r_k)^2",
        r"\ell = \frac{1}{2} (1 - p_t)^2 \qquad \text{under a sigmoid}",
    ),
    "ohem": (
        r"L = \frac{1}{|K|} \sum_{i \in K} u_i, \qquad K = \{ i : p_{t,i} < \theta \} \cup"
        r" \{ \text{the } k \text{ hardest} \}",
    ),
    "topk": (r"L = \frac{1}{k} \sum_{i \le k} u_{(i)}, \qquad k = \max \left( 1, \lfloor q N / 100 \rfloor \right)",),
    "wce": (
        r"L = -\frac{1}{N} \sum \left[ w \, r \ln p + (1 - r) \ln (1 - p) \right], \qquad"
        r" w = \frac{N - \sum p}{\sum p}",
        r"L = \frac{1}{N} \sum w_c \, u, \qquad w_c = \frac{N - \sum p_c}{\sum p_c} \qquad \text{several classes}",
    ),
    "boundary_ce": (
        r"L = \frac{1}{|B|} \sum_{i \in B} u_i, \qquad B = \{ i : \text{another label lies in the window of } i \}",
    ),
    "distance_penalty": (
        r"L = \frac{1}{N} \sum (1 + \Phi) \, u, \qquad \Phi = \frac{d_{\max} - d}{d_{\max} - d_{\min}}",
    ),
    "border_ce": (
        r"L = \frac{1}{N} \sum \left( w_c + w_0 \, e^{-(d_1 + d_2)^2 / 2 \sigma^2} \right) u",
    ),
    # information
    "kl": (r"\ell = \sum_k r_k \ln \frac{r_k}{p_k}",),
    "entropy": (r"\ell = -\sum_k p_k \ln p_k",),
    # region
    "dice": (
        r"L_c = 1 - \frac{2 \sum p r + \varepsilon}{\sum p + \sum r + \varepsilon}",
        r"L_c = 1 - \frac{2 \sum p r + \varepsilon}{\sum p^2 + \sum r^2 + \varepsilon} \qquad \text{squared}",
    ),
    "jaccard": (r"L_c = 1 - \frac{\sum p r + \varepsilon}{\sum p + \sum r - \sum p r + \varepsilon}",),
    "tversky": (
        r"L_c = 1 - \frac{\mathrm{TP} + \varepsilon}{\mathrm{TP} + a \, \mathrm{FP} + b \, \mathrm{FN} + \varepsilon}",
    ),
    "gdl": (r"L = 1 - \frac{2 \sum_c w_c \sum p r}{\sum_c w_c \left( \sum p + \sum r \right)}, \qquad"
            r" w_c = \frac{1}{R_c^2}",),
    "dice2": (
        r"L = 1 - \frac{\sum p r + \frac{\varepsilon}{2}}{\sum p + \sum r + \varepsilon}"
        r" - \frac{\sum (1 - p)(1 - r) + \frac{\varepsilon}{2}}{\sum (2 - p - r) + \varepsilon}",
    ),
    "logcosh_dice": (
        r"L_c = \ln \cosh \left( 1 - \frac{2 \sum p r + \varepsilon}{\sum p + \sum r + \varepsilon} \right)",
    ),
    "focal_tversky": (
        r"L_c = \left( 1 - \frac{\mathrm{TP} + \varepsilon}"
        r"{\mathrm{TP} + a \, \mathrm{FP} + b \, \mathrm{FN} + \varepsilon} \right)^{\kappa}",
    ),
    "ss": (
        r"L_c = \lambda \, \frac{\sum (r - p)^2 \, r}{\sum r + \varepsilon}"
        r" + (1 - \lambda) \, \frac{\sum (r - p)^2 \, (1 - r)}{\sum (1 - r) + \varepsilon}",
    ),
    "log_dice": (
        r"L_c = (-\ln D_c)^{\gamma}, \qquad"
        r" D_c = \frac{2 \sum p r + \varepsilon}{\sum p + \sum r + \varepsilon}",
    ),
    # sorted
    "lovasz": (
        r"L_c = \sum_i e_{(i)} \left( \Delta_i - \Delta_{i-1} \right), \qquad e = |r - p|, \quad"
        r" e_{(1)} \ge e_{(2)} \ge \dots",
    ),
    "lovasz_hinge": (
        r"L_c = \sum_i \max \left( 0, e_{(i)} \right) \left( \Delta_i - \Delta_{i-1} \right), \qquad"
        r" e = 1 - z \, (2 r - 1), \quad e_{(1)} \ge e_{(2)} \ge \dots",
    ),
    # map
    "boundary": (r"L_c = \frac{1}{N} \sum \varphi \, p",),
    "hausdorff": (r"L_c = \frac{1}{N} \sum (p - r)^2 \left( d_r^{\,\alpha} + d_p^{\,\alpha} \right)",),
    # field
    "active_contour": (
        r"L_c = \mathrm{mean} \sqrt{\sum_{a} (\partial_a p)^2 + \varepsilon}"
        r" + \lambda \; \mathrm{mean} \left( \mu \, p \, (1 - r) + (1 - p) \, r \right)",
    ),
    "boundary_f1": (
        r"L_c = 1 - \frac{2 P R}{P + R}, \qquad P = \frac{\sum p^b r^e}{\sum p^b}, \qquad"
        r" R = \frac{\sum r^b p^e}{\sum r^b}",
        r"y^b = \max\nolimits_{\theta_0} (1 - y) - (1 - y), \qquad y^e = \max\nolimits_{\theta} \left( y^b \right)",
    ),
    "nonadjacency": (
        r"L = \frac{\sum_{ij} B_{ij} \, a_{ij}}{\sum_{ij} B_{ij}}, \qquad"
        r" a_{ij} = \frac{1}{N} \sum_x \varphi_i(x) \, \mathrm{box}(\varphi_j)(x)",
    ),
    # sum
    "dice_ce": (r"L = w_D \, L_{\text{Dice}} + w_X \, L_{\text{CE}}",),
    "dice_focal": (r"L = w_D \, L_{\text{Dice}} + w_F \, L_{\text{focal}}",),
    "combo": (
        r"L = \alpha \, \frac{1}{N} \sum w \, u - (1 - \alpha) \; \mathrm{mean}_c \, D_c, \qquad"
        r" D_c = \frac{2 \sum p r + \varepsilon}{\sum p + \sum r + \varepsilon}",
    ),
    "explog": (
        r"L = w_D \; \mathrm{mean}_c \, (-\ln D_c)^{\gamma} + w_X \, \frac{1}{N} \sum w_l \, u^{\gamma}, \qquad"
        r" w_l = \sqrt{\frac{\sum_k f_k}{f_l}}",
        r"D_c = \frac{2 \sum p r + \varepsilon}{\sum p + \sum r + \varepsilon}",
    ),
    "unified_focal": (
        r"L = \lambda \, \frac{1}{N} \sum \ell + (1 - \lambda) \; \mathrm{mean}_c \, t_c",
        r"\ell = \begin{cases} \delta \, u & \text{rare label} \\ (1 - \delta) \, (1 - p_t)^{\gamma} \, u &"
        r" \text{another} \end{cases} \qquad t_c = \begin{cases} (1 - T_c)^{1 - \gamma} & \text{rare class} \\"
        r" 1 - T_c & \text{another} \end{cases}",
        r"T_c = \frac{\mathrm{TP} + \varepsilon}"
        r"{\mathrm{TP} + \delta \, \mathrm{FN} + (1 - \delta) \, \mathrm{FP} + \varepsilon}",
    ),
    # box
    "iou_box": (rf"\ell = 1 - {_P}", rf"\ell = -\ln \max \left( {_P}, 10^{{-6}} \right) \qquad \text{{log}}"),
    "giou": (rf"\ell = 1 - {_P} + \frac{{A - U}}{{A}}",),
    "diou": (rf"\ell = 1 - {_P} + \frac{{\rho^2}}{{c^2}}",),
    "ciou": (
        rf"\ell = 1 - {_P} + \frac{{\rho^2}}{{c^2}} + \alpha v",
        r"v = \frac{4}{\pi^2} \left( \arctan \frac{W}{H} - \arctan \frac{w}{h} \right)^2, \qquad"
        rf" \alpha = \frac{{v}}{{1 - {_P} + v}}",
    ),
    "eiou": (
        rf"\ell = \left( {_P} \right)^{{\gamma}} \left( 1 - {_P} + \frac{{\rho^2}}{{c^2}}"
        r" + \frac{(w - W)^2}{c_w^2} + \frac{(h - H)^2}{c_h^2} \right)",
    ),
    "siou": (
        rf"\ell = 1 - {_P} + \frac{{\Delta + \Omega}}{{2}}",
        r"\Delta = \left( 1 - e^{-(2 - \Lambda) (d_x / c_w)^2} \right) + \left( 1 - e^{-(2 - \Lambda) (d_y / c_h)^2}"
        r" \right), \qquad \Lambda = \frac{2 \, | d_x d_y |}{d_x^2 + d_y^2}",
        r"\Omega = \left( 1 - e^{-| w - W | / \max(w, W)} \right)^{\theta}"
        r" + \left( 1 - e^{-| h - H | / \max(h, H)} \right)^{\theta}",
    ),
    # distribution
    "qfl": (r"\ell = | y - s |^{\beta} \left( -y \ln s - (1 - y) \ln (1 - s) \right)",),
    "vfl": (
        r"\ell = \begin{cases} y \left( -y \ln s - (1 - y) \ln (1 - s) \right) & y > 0 \\"
        r" -\alpha \, s^{\gamma} \ln (1 - s) & y = 0 \end{cases}",
    ),
    "dfl": (
        r"\ell = -(i + 1 - y) \ln S_i - (y - i) \ln S_{i+1}, \qquad i = \min \left( \lfloor y \rfloor, n - 1 \right)",
    ),
    "gfl": (
        r"L = \frac{\sum \mathrm{QFL}}{N_+} + \frac{\lambda_0 \sum_+ s \, L_{\text{box}}"
        r" + \lambda_1 \sum_+ s \, \mathrm{DFL}}{\sum_+ s}",
    ),
    # regression
    "l1": (r"\ell = | x |",),
    "l2": (r"\ell = \frac{x^2}{2}",),
    "smooth_l1": (
        r"\ell = \begin{cases} \frac{x^2}{2 \beta} & | x | < \beta \\"
        r" | x | - \frac{\beta}{2} & \text{else} \end{cases}",
    ),
    "huber": (
        r"\ell = \begin{cases} \frac{x^2}{2} & | x | < \delta \\ \delta \left( | x | - \frac{\delta}{2} \right) &"
        r" \text{else} \end{cases}",
    ),
}  # fmt: skip

WHOLE = {
    "pixel": r"$\ell$ is what one pixel costs. The loss is the mean over the valid pixels, by their weights.",
    "information": r"$\ell$ is what one pixel costs. The loss is the mean over the valid pixels, by their weights.",
    "region": "$L_c$ is the loss of one class in one image; sums run over its valid pixels. The loss is the mean over "
    "the classes, then over the images.",
    "box": r"$\ell$ is what one pair of boxes costs. The loss is the mean over the pairs, or their sum over "
    "`denominator=`.",
    "distribution": r"$\ell$ is what one score or edge costs. The loss is the mean, or the sum over `denominator=`.",
    "regression": r"$\ell$ is what one number costs. The loss is the mean, or the sum over `denominator=`.",
}
WHOLE |= dict.fromkeys(("sorted", "map", "field"), WHOLE["region"])

LETTERS = {
    "p_t": "the probability that the model gives to the true label",
    "p": "the probability that the model gives to the class",
    "r": "the target: 1 on the class, 0 elsewhere, or a soft label",
    "u": r"$-\ln p_t$, the cross-entropy of the pixel",
    "z": "the logit",
    r"\mathrm{TP}": r"$\sum p r$, what is found",
    r"\mathrm{FP}": r"$\sum p (1 - r)$, what is found and is not there",
    r"\mathrm{FN}": r"$\sum (1 - p) r$, what is missed",
    "R_c": r"$\sum r$, the size of the class in the target",
    "N": "the number of valid pixels",
    "C": "the number of classes",
    "I": "the area in which the two boxes overlap",
    "U": "the area that they cover together",
    "A": "the area of the smallest box around both, the hull",
    r"\rho": "the distance of the centres",
    "d_x": "the distance of the centres along x, $d_y$ along y",
    "c": "the diagonal of the hull",
    "c_w": "the width of the hull, $c_h$ its height",
    "w": "the width of the box and $h$ its height, $W$ and $H$ those of its target",
    "s": "the score, the sigmoid of the logit",
    "y": "the target of the score, the quality of the box",
    "x": "prediction − target",
    r"\Delta_i": r"the Jaccard loss if exactly the $i$ pixels with the largest errors were wrong; $\Delta_0 = 0$",
}
WHERE = {
    "ce": "p_t",
    "focal": "p_t u",
    "power_ce": "u",
    "conservative": "p_t",
    "quadratic": "p_t C",
    "ohem": "",
    "topk": "N",
    "wce": "p r u N",
    "boundary_ce": "",
    "distance_penalty": "u N",
    "border_ce": "u N",
    "kl": "",
    "entropy": "",
    "dice": "p r",
    "jaccard": "p r",
    "tversky": r"\mathrm{TP} \mathrm{FP} \mathrm{FN}",
    "gdl": "p r R_c",
    "dice2": "p r",
    "logcosh_dice": "p r",
    "focal_tversky": r"\mathrm{TP} \mathrm{FP} \mathrm{FN}",
    "ss": "p r",
    "log_dice": "p r",
    "lovasz": r"p r \Delta_i",
    "lovasz_hinge": r"z r \Delta_i",
    "boundary": "p N",
    "hausdorff": "p r N",
    "active_contour": "p r",
    "boundary_f1": "p r",
    "nonadjacency": "N",
    "dice_ce": "",
    "dice_focal": "",
    "combo": "p r u N",
    "explog": "p r u N",
    "unified_focal": r"p_t u \mathrm{TP} \mathrm{FP} \mathrm{FN} N",
    "iou_box": "I U",
    "giou": "I U A",
    "diou": r"I U \rho c",
    "ciou": r"I U \rho c w",
    "eiou": r"I U \rho c c_w w",
    "siou": "I U d_x c_w w",
    "qfl": "s y",
    "vfl": "s y",
    "dfl": "",
    "gfl": "",
    "l1": "x",
    "l2": "x",
    "smooth_l1": "x",
    "huber": "x",
}
MEANING: dict[str, dict[str, str]] = {
    "ce": {"K": "the number of labels: $C$, or 2 under a sigmoid"},
    "focal": {r"\alpha_t": "the factor of the true label; 1 unless `alpha` is given"},
    "power_ce": {"f_l": "how frequent the label is", r"\gamma": "`exponent`"},
    "conservative": {"a": "`base`", r"\lambda": "`lam`"},
    "ohem": {"u_i": r"$-\ln p_t$, the cross-entropy of a pixel", r"\theta": "`thresh`", "k": "`min_kept`"},
    "topk": {"q": "`percent`", "u_{(i)}": "the cross-entropies in order, the largest first"},
    "wce": {"w": "the weight of a yes, within `clamp`; a constant to the gradient"},
    "boundary_ce": {
        "u_i": r"$-\ln p_t$, the cross-entropy of a pixel",
        "B": "the pixels beside a boundary; the window is `kernel_size` wide",
    },
    "distance_penalty": {
        "d": "the distance to the nearest pixel of another label; its extremes are those of the class in the image"
    },
    "border_ce": {
        "d_1": "the distance to the nearest object, $d_2$ to the second nearest",
        "w_c": "`class_weight`, 1 by default",
        r"\sigma": "`sigma`",
    },
    "quadratic": {"p_k": "the probability of class $k$", "r_k": "its target"},
    "kl": {"p_k": "the model's probability of class $k$", "r_k": "the target's"},
    "entropy": {"p_k": "the model's probability of class $k$"},
    "dice": {r"\varepsilon": "`smooth`"},
    "jaccard": {r"\varepsilon": "`smooth`"},
    "tversky": {"a": "`fp_weight`", "b": "`fn_weight`", r"\varepsilon": "`smooth`"},
    "gdl": {"w_c": "by `weighting`: $1 / R_c^2$, $1 / R_c$ or 1"},
    "dice2": {r"\varepsilon": "`smooth`"},
    "logcosh_dice": {r"\varepsilon": "`smooth`"},
    "focal_tversky": {"a": "`fp_weight`", "b": "`fn_weight`", r"\kappa": "`exponent`", r"\varepsilon": "`smooth`"},
    "ss": {r"\lambda": "`sensitivity`", r"\varepsilon": "`smooth`"},
    "log_dice": {r"\gamma": "`exponent`", r"\varepsilon": "`smooth`"},
    "boundary": {
        r"\varphi": "the signed distance to the boundary of the target: outside the distance to the class, inside "
        "$-(d - h)$ with $d$ the distance to the rest and $h$ the smallest spacing"
    },
    "hausdorff": {
        "d_r": "the distance to the other side of the target's mask, $d_p$ of the prediction's; both are constants",
        r"\alpha": "`alpha`",
    },
    "active_contour": {
        r"\partial_a p": "the difference to the next pixel along an axis",
        r"\lambda": "`region_weight`",
        r"\mu": "`inside_weight`",
        r"\varepsilon": "`eps`",
    },
    "boundary_f1": {
        "y": "$p$ or $r$; $y^b$ is the inner ring of its boundary, $y^e$ what lies near that",
        r"\max\nolimits_{\theta}": r"the largest value in a window of $\theta$ pixels",
        r"\theta_0": r"`theta0`; $\theta$ is `theta`",
    },
    "nonadjacency": {
        "B_{ij}": "`forbidden`: above 0 for pairs of classes that must not touch",
        r"\varphi_i": "the probability of class $i$",
        r"\mathrm{box}": "the mean over a window of `window` pixels along each axis, zeros beyond the image",
    },
    "dice_ce": {"w_D": "`dice_weight`", "w_X": "`ce_weight`"},
    "dice_focal": {"w_D": "`dice_weight`", "w_F": "`focal_weight`"},
    "combo": {
        r"\alpha": "`alpha`",
        "w": r"$\beta$ where the label is above 0, $1 - \beta$ where it is 0, with $\beta$ `beta`",
        r"\varepsilon": "`smooth`",
    },
    "explog": {"w_D": "`dice_weight`", "w_X": "`ce_weight`", "f_l": "how frequent the label is", r"\gamma": "`gamma`"},
    "unified_focal": {
        "t_c": "rare are the classes in `rare`, by default all but class 0",
        r"\lambda": "`lam`",
        r"\delta": "`delta`",
        r"\gamma": "`gamma`",
        r"\varepsilon": "`smooth`",
    },
    "ciou": {r"\alpha": "a constant to the gradient; 0 up to the IoU that `gate` says"},
    "eiou": {r"\gamma": "`focal`, 0 by default"},
    "siou": {r"\Lambda": "0 where the centres agree", r"\theta": "`theta`"},
    "qfl": {r"\beta": "`beta`"},
    "vfl": {r"\alpha": "`alpha`", r"\gamma": "`gamma`"},
    "dfl": {"S_i": "the softmax over the bins 0 to $n$", "y": "the position of the edge, clamped to $[0, n]$"},
    "gfl": {
        "s": "the highest score of a positive point, a constant to the gradient",
        "N_+": r"the number of positive points, over which $\sum_+$ runs",
        r"\lambda_0": r"`box_weight`; $\lambda_1$ is `dfl_weight`",
        r"\mathrm{DFL}": "the mean over the four edges",
    },
    "smooth_l1": {r"\beta": "`beta`"},
    "huber": {r"\delta": "`delta`"},
}


def letters(name: str) -> dict[str, str]:
    """What the letters of a loss's formula stand for."""
    return {letter: LETTERS[letter] for letter in WHERE[name].split()} | MEANING.get(name, {})
