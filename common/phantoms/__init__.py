"""Draw synthetic scans with exact ground truth, and write cohorts of them; the methods hold the recipes."""

from .cohort import ensure_cohort, write_cohort
from .recipe import Phantom, PhantomRecipe

__all__ = [
    "Phantom",
    "PhantomRecipe",
    "ensure_cohort",
    "write_cohort",
]
