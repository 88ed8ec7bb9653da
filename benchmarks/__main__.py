"""Run the command line of the benchmarks, ``python -m benchmarks VERB ...``; each verb prints one table."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import fire
import torch

from common.errors import InputError
from common.logs import NOTICES

from .attention import attention_rows
from .gastric import SIZE, gastric_rows
from .glioma import BUNDLE, glioma_rows
from .infer import PARTS, infer_rows
from .measure import report
from .metrics import metrics_rows
from .train import train_rows

WORK = str(Path(__file__).parent / "work")


def infer(
    json: str | None = None,
    device: str = "cpu",
    repeats: int = 5,
    work: str = WORK,
    only: str | tuple[str, ...] = (),
) -> None:
    """Measure inference from file to file, inverse resampling, growth with the volume, and start-up.

    The first run trains MONAI's UNet on synthetic CTs for some minutes. MMFNet has the weights of the demo.

    Args:
        json: file for the rows of the table.
        device: cpu or cuda.
        repeats: number of measurements of each time; the table has their medians.
        work: folder that keeps volumes and weights between runs.
        only: parts to run, separated by commas: ct2, ct14, mmfnet, back2, back14, growth, start-up.
    """
    parts = tuple(only.split(",")) if isinstance(only, str) else tuple(only)
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(f"--only {','.join(unknown)}: unknown part; expected one or more of {', '.join(PARTS)}")
    place = _prepare(device)
    report("infer", infer_rows(_folder(work), place, repeats, parts), place, json)


def train(json: str | None = None, device: str = "cpu", repeats: int = 5, work: str = WORK) -> None:
    """Measure samples from the cache, the size of a cached case, and an iteration of the trainer.

    Args:
        json: file for the rows of the table.
        device: cpu or cuda, for the network.
        repeats: number of measurements of each time; the table has their medians.
        work: folder that keeps the volume between runs.
    """
    place = _prepare(device)
    report("train", train_rows(_folder(work), place, repeats), place, json)


def metrics(json: str | None = None, device: str = "cpu", repeats: int = 5) -> None:
    """Measure Dice, HD95, ASSD and surface Dice of one case.

    Args:
        json: file for the rows of the table.
        device: cpu or cuda, for the masks.
        repeats: number of measurements of each time; the table has their medians.
    """
    place = _prepare(device)
    report("metrics", metrics_rows(place, repeats), place, json)


def glioma(
    json: str | None = None,
    device: str = "cpu",
    repeats: int = 5,
    work: str = WORK,
    demo: str = str(BUNDLE / "demo"),
    cascade_demo: str = str(BUNDLE / "demo_cascade"),
) -> None:
    """Compare OM-Net's windows with the paper's, and one pass with the model cascade.

    Args:
        json: file for the rows of the table.
        device: cpu or cuda.
        repeats: number of measurements of each time on the demo's cases.
        work: folder that keeps the volume between runs.
        demo: folder of the demo.
        cascade_demo: folder of the demo that was run with the overlay of the cascade.
    """
    place = _prepare(device)
    report("glioma", glioma_rows(_folder(work), place, repeats, Path(demo), Path(cascade_demo)), place, json)


def attention(json: str | None = None, device: str = "cpu", repeats: int = 3) -> None:
    """Compare values, memory and time of the linear position attention with those of the matrix of all pairs.

    Args:
        json: file for the rows of the table.
        device: cpu or cuda.
        repeats: number of processes for each figure; the table has the smallest value.
    """
    place = _prepare(device)
    report("attention", attention_rows(place, repeats), place, json)


def gastric(json: str | None = None, device: str = "cpu", repeats: int = 3, size: tuple[int, int, int] = SIZE) -> None:
    """Compare time and peak memory of MA-MTLN with those of a literal implementation of its formulas.

    Args:
        json: file for the rows of the table.
        device: cpu or cuda.
        repeats: number of processes for each figure; the table has the medians.
        size: image size (x, y, z) in voxels; 256,256,24 takes 6 GB of memory.
    """
    place = _prepare(device)
    if not isinstance(size, (tuple, list)) or len(size) != 3:
        raise InputError(f"--size {size}: expected three numbers, such as 256,256,24")
    report("gastric", gastric_rows(place, repeats, size), place, json)


def _prepare(device: str) -> torch.device:
    """Return the device, and set one thread: other programs hardly change the CPU time of one thread."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: PyTorch finds no CUDA device; use --device cpu")
    for notice in NOTICES:
        warnings.filterwarnings("ignore", notice)
    torch.set_num_threads(1)
    return torch.device(device)


def _folder(work: str) -> Path:
    """Make the working folder, and return its absolute path."""
    path = Path(work).resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("PAGER", "cat")  # fire shows its help in a pager
    try:
        verbs = {
            "infer": infer,
            "train": train,
            "metrics": metrics,
            "glioma": glioma,
            "gastric": gastric,
            "attention": attention,
        }
        fire.Fire(verbs, name="python -m benchmarks")
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
