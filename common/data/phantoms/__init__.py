"""Synthetic labelled cohorts in the shape of a bundle's data, for demonstrations and tests."""

from .brain import BRAIN_DISTRACTORS, BRAIN_SIGNALS, BrainPhantom
from .cohort import ensure_cohort, write_cohort
from .head import HEAD_DISTRACTORS, HEAD_SIGNALS, HeadPhantom
from .liver import LiverPhantom
from .lung import LungPhantom
from .recipe import Phantom, PhantomRecipe
from .stomach import StomachPhantom

__all__ = [
    "BRAIN_DISTRACTORS",
    "BRAIN_SIGNALS",
    "HEAD_DISTRACTORS",
    "HEAD_SIGNALS",
    "BrainPhantom",
    "HeadPhantom",
    "LiverPhantom",
    "LungPhantom",
    "Phantom",
    "PhantomRecipe",
    "StomachPhantom",
    "ensure_cohort",
    "write_cohort",
]
