"""Draw the architecture of every network as an SVG, from the shapes that its own modules return."""

from .networks import NETWORKS

__all__ = ["NETWORKS"]
