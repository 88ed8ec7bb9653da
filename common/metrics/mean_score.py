"""A score of validation: the mean of all scores of a case."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InputError


class MeanScore:
    """For ``ignite.metrics.Average`` of an evaluator: the mean over cases of each case's score.

    That is the mean of a case's ``scores``, such as the Dice of each region. Where the network also classifies, it is
    the mean of that and of the probability given to the true class, or this probability alone without ``scores`` or
    where they are all NaN. A probability rather than right or wrong tells epochs apart when the cases of validation are
    few. Scores that are NaN, as of a region that the truth does not have, are left out.

    Args:
        scores: function of prediction and truth ``(1, C, x, y, z)`` to names and values; None to score the class only.
        pred_key, label_key: entries of the evaluator's decollated output.
        class_key: its entry with the true class, a name or an index; None to score the segmentation only, which is
            also done for a case without an entry ``result``. MONAI's evaluators keep an entry of the data list out of
            their output, but not its copy: ``CopyItemsd(keys="class", names="true_class")`` among the post transforms.

    Raises:
        InputError: neither ``scores`` nor ``class_key``.
    """

    def __init__(
        self,
        scores: Callable[..., Mapping[str, float]] | None = None,
        pred_key: str = "pred",
        label_key: str = "label",
        class_key: str | None = None,
    ) -> None:
        if scores is None and class_key is None:
            raise InputError("neither scores nor class_key: nothing to score; expected one of them or both")
        self.scores = scores
        self.pred_key = pred_key
        self.label_key = label_key
        self.class_key = class_key

    def __call__(self, output: Sequence[Mapping[str, Any]]) -> float:
        """Mean over the cases of a batch.

        Args:
            output: of each case the tensors ``(C, x, y, z)`` of ``pred_key`` and ``label_key``, its ``result`` with the
                ``probabilities`` by class name, and its true class.

        Raises:
            InputError: a case with a result but without its true class, or with one that the result does not know.
        """
        return statistics.fmean(self._of_case(case) for case in output)

    def _of_case(self, case: Mapping[str, Any]) -> float:
        parts = []
        if self.scores is not None:
            values = self.scores(case[self.pred_key][None], case[self.label_key][None]).values()
            if defined := [value for value in values if not math.isnan(value)]:
                parts.append(statistics.fmean(defined))
        if self.class_key is not None and (self.scores is None or "result" in case):
            parts.append(self._of_class(case, self.class_key))
        return statistics.fmean(parts) if parts else math.nan

    @staticmethod
    def _of_class(case: Mapping[str, Any], key: str) -> float:
        probabilities: Mapping[str, float] = case["result"]["probabilities"]
        names = [*probabilities]
        true = case.get(key)
        if true is not None and not isinstance(true, str) and 0 <= int(true) < len(names):
            true = names[int(true)]
        if not isinstance(true, str) or true not in probabilities:
            raise InputError(
                f"a case of class {true!r}, by its entry '{key}': expected a name out of {', '.join(names)} or an "
                f"index from 0 to {len(names) - 1}; its entries are {', '.join(case)}"
            )
        return float(probabilities[true])
