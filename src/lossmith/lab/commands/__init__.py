"""The command line: `lossmith audit`, `compare`, `predict`, `report`, `list`, `show`, `plot`, `lab box-regression`."""

from lossmith.lab.commands import audit, compare, predict, report, catalogue, plot, experiments  # noqa: F401, I001  the order of the help
from lossmith.lab.commands.terminal import app as app
