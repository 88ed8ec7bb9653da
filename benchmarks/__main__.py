"""Command line: ``python -m benchmarks VERB ...``; each verb prints one table."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import fire
import torch

from common.errors import InputError
from common.session import NOTICES

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
    """Whole scans from file to file, the way back from the network's grid, growth with the volume, start-up.

    The first run trains MONAI's UNet on synthetic CTs, some minutes; MMFNet's weights are the demo's.

    Args:
        json: file that gets the table's rows.
        device: cpu or cuda.
        repeats: of each time; the table has their medians.
        work: folder where volumes and weights are kept between runs.
        only: some of ct2, ct14, mmfnet, back2, back14, growth, start-up, separated by commas.
    """
    parts = tuple(only.split(",")) if isinstance(only, str) else tuple(only)
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(f"--only {','.join(unknown)}: expected some of {', '.join(PARTS)}")
    place = _prepare(device)
    report("infer", infer_rows(_folder(work), place, repeats, parts), place, json)


def train(json: str | None = None, device: str = "cpu", repeats: int = 5, work: str = WORK) -> None:
    """Samples of a cached case, its bytes, and an iteration of the trainer.

    Args:
        json: file that gets the table's rows.
        device: cpu or cuda, of the network.
        repeats: of each time; the table has their medians.
        work: folder where the volume is kept between runs.
    """
    place = _prepare(device)
    report("train", train_rows(_folder(work), place, repeats), place, json)


def metrics(json: str | None = None, device: str = "cpu", repeats: int = 5) -> None:
    """Dice, HD95, ASSD and surface Dice of one case.

    Args:
        json: file that gets the table's rows.
        device: cpu or cuda, of the masks.
        repeats: of each time; the table has their medians.
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
    """OM-Net's windows beside the paper's, and one pass beside the model cascade.

    Args:
        json: file that gets the table's rows.
        device: cpu or cuda.
        repeats: of each time on the demo's cases.
        work: folder where the volume is kept between runs.
        demo: folder of the demo.
        cascade_demo: folder of the demo with the overlay of the cascade.
    """
    place = _prepare(device)
    report("glioma", glioma_rows(_folder(work), place, repeats, Path(demo), Path(cascade_demo)), place, json)


def attention(json: str | None = None, device: str = "cpu", repeats: int = 3) -> None:
    """Position attention: equal values, memory and time of its linear form beside the matrix of all pairs.

    Args:
        json: file that gets the table's rows.
        device: cpu or cuda.
        repeats: processes of each figure; the table has their least.
    """
    place = _prepare(device)
    report("attention", attention_rows(place, repeats), place, json)


def gastric(json: str | None = None, device: str = "cpu", repeats: int = 3, size: tuple[int, int, int] = SIZE) -> None:
    """MA-MTLN beside its formulas as they are written: time and peak memory of inference and of a training step.

    Args:
        json: file that gets the table's rows.
        device: cpu or cuda.
        repeats: processes of each figure; the table has their medians.
        size: voxels (x, y, z) of the image; 256,256,24 takes 6 GB of memory.
    """
    place = _prepare(device)
    if not isinstance(size, (tuple, list)) or len(size) != 3:
        raise InputError(f"--size {size}: expected three numbers such as 256,256,24")
    report("gastric", gastric_rows(place, repeats, size), place, json)


def _prepare(device: str) -> torch.device:
    """The device; and one thread, whose CPU time other programs on the machine do not change much."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: no CUDA device")
    for notice in NOTICES:
        warnings.filterwarnings("ignore", notice)
    torch.set_num_threads(1)
    return torch.device(device)


def _folder(work: str) -> Path:
    path = Path(work).resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
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
