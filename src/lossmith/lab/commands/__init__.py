"""The command line: `lossmith audit`, `compare`, `predict`, `report`, `list`, `show`, `plot`, `check`, `lab`."""

from lossmith.lab.commands import audit, compare, predict, report, catalogue, plot, check, experiments, box_regression  # noqa: F401, I001  the order of the help
from lossmith.lab.commands.terminal import app as app
