"""The losses of other libraries under their own names: `from lossmith.compat import monai as losses`, and nothing else
of a project changes.

Constructor arguments, defaults, calls, shapes and values are theirs; every class is a thin translation into one of our
losses, which `loss.ours(channels)` shows. Where their value is a defect ours is right, and where an argument has no
meaning here the constructor or the call raises: both stand in the table, `peer.TABLE`, from which docs/compat.md and
the tests are made. None of those libraries is imported.
"""
