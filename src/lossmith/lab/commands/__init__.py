"""The command line: `lossmith audit`, `compare`, `report`, `list`, `show`, `plot`, `lab box-regression`."""

from lossmith.lab.commands import audit, compare, report, catalogue, plot, experiments  # noqa: F401, I001  the order of the help
from lossmith.lab.commands.terminal import app as app
