"""Data lists (``dataset.json``) of known public layouts, with cross-validation folds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import whole_file
from .cases import images_of_case, is_scan, modality_of, split_by_fold, stem

LABEL_WORDS = ("seg", "label", "mask", "gt", "gtv", "roi")


def write_datalist(
    layout: str,
    root: str | Path,
    out: str | Path,
    modalities: Sequence[str] = (),
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
) -> dict[str, list[dict]]:
    """List the labelled cases of a folder, deal them into folds, and write the split of one fold.

    Every case keeps its fold, so that ``--fold`` of a training can take any other split from the same file.

    Args:
        layout: ``"nnunet"``, also the Medical Segmentation Decathlon's: ``imagesTr`` (a file per case, or
            ``CASE_0000``, ``CASE_0001``, ... per channel), ``labelsTr``; or ``"folders"``: a folder per case
            with its images and a label whose name has one of the words seg, label, mask, gt, gtv, roi.
        root: the folder.
        out: the data list; ``dataset_dir`` of the bundles is its folder.
        modalities: names of the channels in the network's order, where a case has several.
        folds: number of folds, by case.
        fold: the fold to test on; a quarter of the other cases is for validation.
        seed: of the random order in which cases are dealt into folds.

    Returns:
        the lists ``training``, ``validation`` and ``test``.

    Raises:
        InputError: an unknown layout, no labelled cases, fewer cases than folds, a case without an image or modality.
    """
    root, out = Path(root), Path(out)
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout}: expected one of {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise InputError(f"--root {root}: no such folder")
    if out.exists() and out.resolve() == (root / "dataset.json").resolve() and "fold" not in out.read_text():
        raise InputError(f"--out {out} is the data set's own description; write the list elsewhere")
    cases = LAYOUTS[layout](root, tuple(modalities))
    if not (2 <= folds <= len(cases) and 0 <= fold < folds):
        raise InputError(
            f"{len(cases)} labelled cases in {root}, --folds {folds}, --fold {fold}: "
            "expected at least 2 folds, no more than cases, and fold 0 to folds - 1"
        )
    order = np.random.default_rng(seed).permutation(len(cases))
    for position, index in enumerate(order):
        cases[index].update(fold=position % folds, order=position)
        for key in ("image", "label"):
            value = cases[index][key]
            cases[index][key] = _relative(value, out) if isinstance(value, str) else [_relative(v, out) for v in value]
    lists = split_by_fold(out.parent, {"training": cases}, fold)
    content = {"modality": {str(i): name for i, name in enumerate(modalities)}} if modalities else {}
    with whole_file(out) as partial:
        partial.write_text(json.dumps({**content, **lists}, indent=1) + "\n")
    return lists


def _nnunet(root: Path, modalities: Sequence[str]) -> list[dict]:
    labels = sorted(p for p in (root / "labelsTr").glob("*") if is_scan(p))
    if not labels:
        raise InputError(f"{root / 'labelsTr'}: no label files; layout nnunet has imagesTr and labelsTr")
    order = _channel_order(root, modalities)
    by_case: dict[str, list[Path]] = {}
    for image in sorted(p for p in (root / "imagesTr").glob("*") if is_scan(p)):
        name = stem(image)
        by_case.setdefault(name[:-5] if name[-5:-4] == "_" and name[-4:].isdigit() else name, []).append(image)
    cases = []
    for label in labels:
        images = by_case.get(stem(label), [])
        if len(images) not in (1, max(len(modalities), 1)):
            raise InputError(
                f"{label}: {len(images)} images of it in {root / 'imagesTr'}, expected 1, or one for each of "
                "--modalities"
            )
        if len(images) == 1 and order != sorted(order):
            raise InputError(
                f"{images[0]}: its channels are not in the order {', '.join(modalities)}; reorder them in the files"
            )
        cases.append(
            {"image": str(images[0]) if len(images) == 1 else [str(images[i]) for i in order], "label": str(label)}
        )
    return cases


def _channel_order(root: Path, modalities: Sequence[str]) -> list[int]:
    """Which channel of the data set each modality is, from its own description where it has one."""
    description = root / "dataset.json"
    named = {}
    if description.exists():
        content = json.loads(description.read_text())
        named = content.get("channel_names", content.get("modality", {}))
    names = [modality_of(str(named[key]))[0] for key in sorted(named, key=int)]
    if len(modalities) < 2 or None in names or not names:
        return list(range(len(modalities)))
    missing = [m for m in modalities if m not in names]
    if missing:
        raise InputError(f"{description}: channels {', '.join(map(str, named.values()))}, without {', '.join(missing)}")
    return [names.index(m) for m in modalities]


def _folders(root: Path, modalities: Sequence[str]) -> list[dict]:
    cases = []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in folder.iterdir() if is_scan(p))
        labels = [
            f
            for f in files
            if any(word in stem(f).lower().split("_") for word in LABEL_WORDS) or stem(f).lower() in LABEL_WORDS
        ]
        if len(labels) != 1:
            raise InputError(
                f"{folder}: {len(labels)} label files, expected one whose name has a word of {', '.join(LABEL_WORDS)}"
            )
        images = images_of_case([f for f in files if f not in labels], modalities, str(folder))
        cases.append({"image": images, "label": str(labels[0])})
    if not cases:
        raise InputError(f"{root}: no folders; layout folders has one per case")
    return cases


def _relative(path: str, out: Path) -> str:
    return Path(os.path.relpath(Path(path).resolve(), out.parent.resolve())).as_posix()


LAYOUTS = {"nnunet": _nnunet, "folders": _folders}
