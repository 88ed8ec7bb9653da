"""Train and evaluate all folds of a cross-validation, and join their results."""

from .cross_validate import cross_validate

__all__ = ["cross_validate"]
