"""Plan the training of a network on a data set of other scans and labels."""

from .plan import plan_training, write_plan

__all__ = [
    "plan_training",
    "write_plan",
]
