"""Synthetic scans with exact ground truth: recipes, cohorts, and the parts that recipes share."""

from .cohort import ensure_cohort, write_cohort
from .recipe import Phantom, PhantomRecipe

__all__ = [
    "Phantom",
    "PhantomRecipe",
    "ensure_cohort",
    "write_cohort",
]
