"""Train and evaluate all folds of a cross-validation, and join their results."""

from .run import cross_validate

__all__ = ["cross_validate"]
