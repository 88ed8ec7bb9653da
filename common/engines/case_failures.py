"""Distinguish the failure of a case from a fault of the whole run."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.utils import CommonKeys
from torch import Tensor, nn

from ..errors import InputError, failure_of_case

SHOWN = 3  # failed cases with a reason in the last line of a run; the log has all
FULL = (errno.ENOSPC, errno.EDQUOT)


class WeightsError(InputError):
    """Report weights that make every case fail."""


def check_finite(output: dict[str, Any], network: nn.Module) -> None:
    """Check that the prediction of a case has no infinite value and no NaN.

    Raises:
        WeightsError: the network's weights are not finite.
        InputError: only the prediction is not.
    """
    prediction = output.get(CommonKeys.PRED)
    if not isinstance(prediction, Tensor) or not prediction.is_floating_point() or _all_finite(prediction):
        return
    if not all(map(_all_finite, [*network.parameters(), *network.buffers()])):
        raise WeightsError("the network's weights hold values that are not finite; use other weights")
    raise InputError("the network's output holds values that are not finite; check the scan's intensities")


def _all_finite(values: Tensor) -> bool:
    """Return whether no value is infinite or NaN."""
    # a sum is several times as fast as a look at each value
    return bool(values.sum(dtype=torch.float32).isfinite())


def reason_of_failure(name: str, error: Exception, progress: str) -> str:
    """Return the reason why a case failed, in one line.

    Args:
        name: name of the case.
        error: exception from the work on the case.
        progress: number of the cases that are done, as text for the message of a full disk.

    Raises:
        InputError: the whole run has the fault.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, WeightsError):
            raise cause
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise InputError(
                f"case {name}: {cause.filename or 'results'} cannot be written ({cause.strerror}); {progress} cases "
                "are done; free space and run again"
            ) from error
        cause = cause.__cause__ or cause.__context__
    return failure_of_case(error, name).removeprefix(f"{name}: ")


def failed_cases(names: Sequence[str], reasons: Mapping[str, str]) -> str:
    """Return the names of failed cases as text, with their reasons if they are few.

    Args:
        names: names of the cases.
        reasons: reasons by name; a case that failed in an earlier run has none.
    """
    shown = reasons if len(names) <= SHOWN else {}
    return ", ".join(f"{name} ({shown[name]})" if name in shown else name for name in names)


def equal_names(names: list[str]) -> InputError:
    """Return the error of cases with equal names."""
    return InputError(
        f"two cases are called {', '.join(names)}, so the results of one would replace those of the other; "
        "give each case a different 'case' in the data list"
    )
