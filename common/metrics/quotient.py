"""Divide the counts of a score."""

from __future__ import annotations

import math


def quotient(part: float, whole: float) -> float:
    """Return ``part / whole``, or NaN if the whole is 0."""
    return float(part / whole) if whole else math.nan
