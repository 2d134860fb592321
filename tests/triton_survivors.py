"""Breakages of the Triton kernels that change nothing, each with the reason."""

from __future__ import annotations

SURVIVORS = {
    "pixels.channel_of: 0.0 -> 1.0 #6": "the target of an ignored channel meets nothing but its weight, which is 0",
}
