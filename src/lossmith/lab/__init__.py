"""The lab: find out which loss your data wants, by training with each on the same footing.

    data.py      a folder of images and masks, or labels (files.py), or a built-in set by name (builtin.py, sets.py)
    plan.py      what all trials share: the settings, the crops of a seed
    weights.py   class weights by name, counted from the data
    train.py     one trial: one loss, one seed
    evaluate.py  what the network says about the held-back images
    metrics.py   what a trial is judged by; never a loss
    compare.py   all trials, resumable; one JSON each
    ranking.py   paired differences between losses, with intervals
    report.py    one self-contained HTML file (figures.py, pictures.py, report.html)
    scenes.py    images with boxes, and their tiles; detect.py a small detector, detection.py a trial of it
    average_precision.py, detection_report.py  what that is judged by, and its HTML file
    curves.py    the value and the gradient of any loss, drawn
    box_regression.py  the DIoU paper's simulation of box losses (box_page.py, box_regression.html)
    commands.py  the command line

Everything here needs `pip install "lossmith[lab]"`; the losses themselves do not.
"""


class UserError(Exception):
    """Something the user can put right. The message is one line that says what is wrong and how to fix it."""
