"""Whether a loss keeps what a loss promises: `ls.check(loss)`, for any callable, ours or somebody else's.

subject.py     the callable: which form of target it reads, what it can be asked
properties.py  what is asked, a small function each
smallest.py    the smallest input that still shows a fault, as code
report.py      what was found: text, table, dict
run.py         `check`
"""

from .report import Report, Result
from .run import check

__all__ = ["Report", "Result", "check"]
