"""Define the verb that adapts a bundle to a data set."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..planning import plan_training, write_plan
from .arguments import bundle_folder, words


def plan(
    bundle: str,
    dataset_dir: str,
    out: str,
    hours: float = 1.0,
    fold: int | None = None,
    validation_share: float = 0.25,
    modalities: str | tuple[str, ...] = (),
    overlay: str | None = None,
) -> None:
    """Write one overlay that adapts a bundle to the training cases of another data set.

    The overlay goes after train.json, evaluate.json and inference.json, and into pack --overlay. Its key reasons says
    why each setting has its value.

    Args:
        bundle: name in bundles/, or folder of a bundle.
        dataset_dir: folder of a data list, or of a data set in the form of nnU-Net v2 or of the Medical Segmentation
            Decathlon. Only the training cases are read.
        out: overlay to write, such as plan.json.
        hours: time for the training on this machine.
        fold: cross-validation fold, as for a training.
        validation_share: fraction of the patients outside the fold to use for validation, as for a training.
        modalities: names of the channels. Default: those in the data set's dataset.json.
        overlay: JSON file of settings that the plan takes over, such as a rival's network.
    """
    if Path(out).exists():  # before the measurement, which takes minutes
        raise InputError(f"--out {out}: exists and may be an edited plan; remove it, or choose another file")
    given = None if overlay is None else Path(overlay)
    planned = plan_training(
        bundle_folder(bundle), Path(dataset_dir), hours, fold, validation_share, words(modalities), given
    )
    write_plan(planned, Path(out))
    for key, reason in planned["reasons"].items():
        print(f"{key}: {_shown(planned[key])} ({reason})")
    print(f"{out}: the overlay for train.json, evaluate.json, inference.json and pack")


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
