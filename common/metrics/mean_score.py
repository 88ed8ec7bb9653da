"""Reduce the scores of a case to one score for validation, their mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InputError

TRUE_CLASS = "true class probability"


class MeanScore:
    """Compute the mean score of the cases of a batch, for ``ignite.metrics.Average`` of an evaluator.

    The score of a case is the mean of its ``scores``, such as the Dice of each region. If the network also classifies,
    it is the mean of that and of the probability of the true class. It is this probability alone without ``scores``, or
    if they are all NaN. A NaN, as for a region that the ground truth does not have, is left out.

    The probability distinguishes epochs even with few validation cases, where the accuracy would not change.

    Args:
        scores: callable (prediction, ground truth), both ``(1, C, x, y, z)`` -> values by name; None scores the class
            alone.
        pred_key, label_key: keys of prediction and ground truth in the evaluator's decollated output.
        class_key: key of the true class, a name or an index, in this output; None scores the segmentation alone, as for
            a case without an entry ``result``. MONAI's evaluators drop an entry of the data list from their output, but
            not its copy: put ``CopyItemsd(keys="class", names="true_class")`` among the post transforms.

    Raises:
        InputError: both ``scores`` and ``class_key`` are None.
    """

    def __init__(
        self,
        scores: Callable[..., Mapping[str, float]] | None = None,
        pred_key: str = "pred",
        label_key: str = "label",
        class_key: str | None = None,
    ) -> None:
        if scores is None and class_key is None:
            raise InputError("neither scores nor class_key is set; set one of them or both")
        self.scores = scores
        self.pred_key = pred_key
        self.label_key = label_key
        self.class_key = class_key

    def __call__(self, output: Sequence[Mapping[str, Any]]) -> float:
        """Return the mean score of the cases of a batch.

        Args:
            output: for each case the tensors ``(C, x, y, z)`` of ``pred_key`` and ``label_key``, its ``result`` with
                ``probabilities`` by class name, and its true class.

        Raises:
            InputError: a case has a result and no true class, or its true class is not in the result.
        """
        return statistics.fmean(self.reduce(self.values_of(case)) for case in output)

    def values_of(self, case: Mapping[str, Any]) -> dict[str, float]:
        """Return the scores of a case by name, NaN included, and ``true class probability`` if it has a class."""
        values: dict[str, float] = {}
        if self.scores is not None:
            values |= self.scores(case[self.pred_key][None], case[self.label_key][None])
        if self.class_key is not None and (self.scores is None or "result" in case):
            values[TRUE_CLASS] = self._score_class(case, self.class_key)
        return values

    @staticmethod
    def reduce(values: Mapping[str, float]) -> float:
        """Return the mean score of a case from its values by name."""
        parts = []
        if defined := [value for name, value in values.items() if name != TRUE_CLASS and not math.isnan(value)]:
            parts.append(statistics.fmean(defined))
        if TRUE_CLASS in values:
            parts.append(values[TRUE_CLASS])
        return statistics.fmean(parts) if parts else math.nan

    @staticmethod
    def _score_class(case: Mapping[str, Any], key: str) -> float:
        probabilities: Mapping[str, float] = case["result"]["probabilities"]
        names = [*probabilities]
        true = case.get(key)
        if true is not None and not isinstance(true, str) and 0 <= int(true) < len(names):
            true = names[int(true)]
        if not isinstance(true, str) or true not in probabilities:
            raise InputError(
                f"the true class of a case is {true!r}, by its entry '{key}': expected a name out of "
                f"{', '.join(names)} or an index from 0 to {len(names) - 1}; the case has {', '.join(case)}"
            )
        return float(probabilities[true])
