"""Making a package of a bundle."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import torch
from monai.bundle import ConfigParser

from ..engines.checkpoints import read_weights, save_whole
from ..errors import InputError, root_cause
from ..files import PARTIAL, check_replaceable, dense_json, failures_of_writing, make_folder, read_json, sha256
from ..geometry import same_grid
from ..phantoms import write_cohort
from ..record import RECORD_FILE, apply_settings, read_record, record_path
from ..results import mean_scores, named_class_scores, read_class_scores, read_scores
from ..session import check_setting, literal, setting_of
from .archive import strip_debugging, unpack_zip, write_zip
from .checksums import LIST, check_checksums, foreign_files, read_checksums, write_checksums
from .configs import PATHS, Rewriting, merged
from .labels import check_package_labels, check_scored_regions, labels_table, relabel
from .modules import needed_modules
from .process import in_clean_process

logger = logging.getLogger(__name__)

CODE = Path(__file__).parents[1]
META = "_meta_::"
PARTS = (
    *("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/metadata.json", "configs/logging.conf"),
    *("configs/train.json", "configs/inference.json", "configs/demo.json"),
)
GRID = ("spacing", "in_plane", "slice_thickness")
LEAVING_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")


def pack_bundle(
    bundle: str | Path,
    weights: str | Path | None = None,
    out: str | Path = "dist",
    overlay: str | Path | None = None,
    scores: str | Path | None = None,
) -> Path:
    """Make a folder and a zip of a bundle that run without this repository, and try them in a clean process.

    In them are the configs, with the settings of the record beside the weights; the modules that these need, in a
    package ``NAME_vVERSION`` of the bundle's own; the weights, as ``model.pt`` and scripted, with configs and code
    inside, as ``model.ts``; their record; licence, model card, data licence; and ``SHA256SUMS``. The same input gives
    the same bytes.

    Args:
        bundle: folder of the bundle.
        weights: flat state dict of ``inference.json``'s network; ``models/model.pt`` of the bundle unless given. What
            training left beside it, such as statistics of intensity, is taken from there.
        out: folder for ``NAME/`` and ``NAME_vVERSION.zip``; a package that is there unchanged is replaced.
        overlay: JSON with the settings that the weights were trained with, where they are not the bundle's: those that
            ``inference.json`` or ``train.json`` has are changed in it, except for paths; ``"_meta_::KEY"`` changes
            ``metadata.json``. Settings in the ``run.json`` beside the weights need no overlay.
        scores: output folder of an evaluation of these weights, whose mean scores become ``eval_metrics``.

    Returns:
        the zip.

    Raises:
        InputError: something is missing or does not fit, ``out`` holds other files of these names or cannot be written,
            or the package did not pass its trial.
    """
    bundle, out = Path(bundle).resolve(), Path(out).resolve()
    if (bundle / LIST).exists():
        raise InputError(f"{bundle}: is packed already; give the bundle that it was made of")
    for part in PARTS:
        if not (bundle / part).is_file():
            raise InputError(f"{bundle / part}: no such file; every bundle has one")
    configs = _read_configs(bundle)
    metadata = configs.pop("metadata.json")
    changes = _overlay(bundle.name, Path(overlay), configs, metadata) if overlay is not None else {}
    weights = Path(weights) if weights is not None else bundle / "models" / "model.pt"
    if not weights.is_file():
        found = "a folder" if weights.is_dir() else "no such file"
        raise InputError(f"{weights}: {found}; train the bundle, or give --weights FILE, such as a training's model.pt")
    state = read_weights(weights)
    if record_path(weights).is_file():
        changes = _recorded(bundle, configs["inference.json"], changes, record_path(weights))
    else:
        logger.warning("%s has no %s beside it: settings and cases of its training are not known", weights, RECORD_FILE)
    inference = merged(configs["inference.json"], changes)
    relabel(metadata, configs["inference.json"], inference)
    metadata = _package_metadata(bundle, metadata, changes, inference, scores)
    check_package_labels(inference, metadata)
    name, version = bundle.name, metadata["version"]
    _check_replaceable(out / name)
    make_folder(out)
    with failures_of_writing(out), tempfile.TemporaryDirectory(dir=out, prefix=PARTIAL) as temporary:
        folder = Path(temporary) / name
        check_replaceable(out / f"{name}_v{version}.zip", _is_package)
        logger.info("%s %s: code, configs, weights", name, version)
        code = _write(folder, bundle, metadata, state, _package_configs(configs, changes, weights.resolve().parent))
        if record_path(weights).is_file():
            shutil.copyfile(record_path(weights), record_path(folder / "models" / "model.pt"))
        logger.info("scripting the network")
        try:
            _script(folder, code)
        except InputError as error:
            reason = str(error).replace(f"{folder}{os.sep}", "")
            raise InputError(
                f"{weights}: the bundle's network could not be scripted with it ({reason}); if it was trained with "
                "other settings, give them with --overlay"
            ) from error
        write_checksums(folder)
        archive = Path(temporary) / f"{name}_v{version}.zip"
        files = [path for path in folder.rglob("*") if path.is_file()]
        write_zip(archive, {path.relative_to(folder.parent).as_posix(): path for path in files})
        logger.info("trying the package in a clean process: loading, one synthetic case, the scripted network alone")
        demo = configs["demo.json"]
        # on its coarser grid a window or two hold all of the case
        default = configs["inference.json"]
        coarse = {
            key: demo[key] for key in GRID if key in demo and changes.get(key, default.get(key)) == default.get(key)
        }
        _try(archive, demo["phantom"], coarse)
        _check_replaceable(out / name)
        check_replaceable(out / archive.name, _is_package)
        if (out / name).exists():
            (out / name).replace(Path(temporary) / "before")
        folder.replace(out / name)
        return archive.replace(out / archive.name)


def _check_replaceable(folder: Path) -> None:
    """Check that the folder of a package may be written: there is none, or a packed one, unchanged."""
    if folder.exists() and not (folder / LIST).is_file():
        raise InputError(f"{folder}: exists, and is not a packed bundle; choose another --out")
    if folder.exists():
        listed = read_checksums(folder)
        kept = [path for path in foreign_files(folder, listed) if path.parent.name != "__pycache__"]
        if kept:
            raise InputError(f"{kept[0]}: not a file of the package that is to be replaced; move it elsewhere")
        for file, digest in listed.items():
            if (folder / file).is_file() and sha256(folder / file) != digest:
                raise InputError(f"{folder / file}: changed since it was packed; move it elsewhere")


def _is_package(archive: Path) -> bool:
    """Return whether a zip is a packed bundle, unchanged."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            check_checksums(unpack_zip(archive, Path(temporary)))
        except InputError:
            return False
    return True


def _read_configs(bundle: Path) -> dict[str, Any]:
    """Every config by its path below ``configs``, the metadata too."""
    folder = bundle / "configs"
    return {path.relative_to(folder).as_posix(): read_json(path) for path in sorted(folder.rglob("*.json"))}


def _overlay(name: str, path: Path, configs: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    overlay = read_json(path)
    if not isinstance(overlay, dict):
        raise InputError(f"{path}: holds no settings, expected a JSON object of names and values")
    known = {setting_of(key) for config in configs.values() for key in config}
    for key in overlay:
        if key.startswith(META):
            check_setting(key.removeprefix(META), metadata, f"metadata.json, in {path}")
        else:
            check_setting(key, known, f"{name}, in {path}")
    return overlay


def _recorded(bundle: Path, inference: dict[str, Any], changes: dict[str, Any], record: Path) -> dict[str, Any]:
    """Return the settings of the weights' record and an overlay's other changes, which may not contradict it."""
    changed = {setting_of(key) for key in changes}
    found = read_record(record)
    settings = {k: v for k, v in found.settings.items() if k in inference or k not in changed}
    parser = ConfigParser(merged(inference, changes))
    parser["bundle_root"] = str(bundle)
    apply_settings(parser, settings, inference, (), record, bundle / "configs")
    others = {key: value for key, value in changes.items() if setting_of(key) not in inference}
    return {
        **others,
        "scans": found.scans,
        **{key: parser[key] for key in inference if key in settings or key in changed},
    }


def _package_metadata(
    bundle: Path,
    metadata: dict[str, Any],
    changes: Mapping[str, Any],
    inference: Mapping[str, Any],
    scores: str | Path | None,
) -> dict[str, Any]:
    """The metadata with an overlay's changes and the scores, as MONAI Label reads it."""
    parser = ConfigParser(metadata)
    for key, value in changes.items():
        if key.startswith(META):
            parser[key.removeprefix(META)] = value
    metadata = parser.config
    if "roi_size" in changes:  # the size of a window
        for id in ("inputs::image", "outputs::pred"):
            parser[f"network_data_format::{id}::spatial_shape"] = changes["roi_size"]
    # MONAI Label takes the names of the label map's values from where the specification has those of the channels
    written = metadata["network_data_format"]["post_processed_outputs"]["pred"]["channel_def"]
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = written
    version = metadata["version"]
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise InputError(f"{bundle}: version {version!r} in the metadata, expected text such as '0.2.0'")
    if version not in metadata["changelog"]:
        raise InputError(
            f"{bundle}: version {version} is not in the changelog of the metadata; say there what is new, in an "
            f'overlay by "{META}changelog::{version}"'
        )
    if scores is not None:
        metadata["eval_metrics"] = _eval_metrics(Path(scores))
        check_scored_regions(Path(scores) / "scores.csv", list(metadata["eval_metrics"]), inference)
    return metadata


def _eval_metrics(folder: Path) -> dict[str, float | None]:
    metrics = mean_scores(read_scores(folder / "scores.csv"))
    if (folder / "class_scores.csv").exists():
        metrics |= named_class_scores(read_class_scores(folder / "class_scores.csv"))
    if not metrics:
        raise InputError(f"{folder / 'scores.csv'}: no scores, expected a column of each, as evaluation writes it")
    return {name: None if math.isnan(value) else round(value, 6) for name, value in metrics.items()}


def _package_configs(
    configs: Mapping[str, dict[str, Any]], changes: Mapping[str, Any], weights_folder: Path
) -> dict[str, dict[str, Any]]:
    """The configs with an overlay's changes and what training left in files."""
    configs = dict(configs)
    from_training = [key for key, value in configs["inference.json"].items() if _in_checkpoint_folder(key, value)]
    for name in ("inference.json", "train.json"):
        configs[name] = merged(configs[name], changes)
    parser = ConfigParser(copy.deepcopy(configs["inference.json"]))
    parser["ckpt_dir"] = literal(str(weights_folder))
    for key in from_training:
        try:
            value = parser.get_parsed_content(key)
        except Exception as error:
            raise root_cause(error) from error
        for config in configs.values():
            if key in config and (config is configs["inference.json"] or _in_checkpoint_folder(key, config[key])):
                config[key] = value
    return configs


def _in_checkpoint_folder(key: str, value: Any) -> bool:
    return key not in PATHS and isinstance(value, str) and value.startswith("$") and "@ckpt_dir" in value


def _write(
    folder: Path,
    bundle: Path,
    metadata: dict[str, Any],
    state: dict[str, torch.Tensor],
    configs: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Everything but the scripted network. Gives the ``inference.json`` for that, which carries the code."""
    package = f"{bundle.name}_v{re.sub('[^0-9a-zA-Z]', '_', metadata['version'])}"
    rewriting = Rewriting(configs, CODE.name, package)
    sources = {f"{package}/{path}": text for path, text in needed_modules(CODE, rewriting.names).items()}
    texts = {
        **sources,
        **{f"configs/{name}": dense_json(rewriting(config)) + "\n" for name, config in configs.items()},
        "configs/metadata.json": dense_json(metadata) + "\n",
        "configs/logging.conf": (bundle / "configs" / "logging.conf").read_text(encoding="utf-8"),
        "LICENSE": (bundle / "LICENSE").read_text(encoding="utf-8"),
        "docs/data_license.txt": (bundle / "docs" / "data_license.txt").read_text(encoding="utf-8"),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    save_whole({key: value.contiguous().clone() for key, value in state.items()}, folder / "models" / "model.pt")
    card = _card(bundle, metadata, configs["inference.json"], sha256(folder / "models" / "model.pt"))
    (folder / "docs" / "README.md").write_bytes(card.encode())
    code = folder.with_name("code.zip")
    write_zip(code, {name: text.encode() for name, text in sources.items()})
    return rewriting.with_code(rewriting(configs["inference.json"]), code.read_bytes())


def _card(bundle: Path, metadata: Mapping[str, Any], inference: Mapping[str, Any], digest: str) -> str:
    """The model card, with what this package is at its top, and without links that leave the folder."""
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    title, _, rest = card.partition("\n")
    metrics = "\n".join(
        f"| {name} | {value} |" for name, value in metadata["eval_metrics"].items() if value is not None
    )
    about = f"""
## This package

Version {metadata["version"]}: configs, code, and weights that whoever made this package trained. What follows below
describes the bundle as its collection has it, without weights. Not for clinical use.

```
sha256sum --check {LIST}
pip install {" ".join(_requirements(metadata))}
python -m monai.bundle run --config_file {bundle.name}/configs/inference.json --dataset_dir SCANS --output_dir OUT
```

The first line runs in this folder (macOS: `shasum -a 256 --check`), the last from any: `SCANS` holds the scans, `OUT`
gets the results. DICOM also needs `itk` and `pydicom`, and `highdicom` for DICOM segmentations.
`models/model.pt` has the SHA-256 `{digest}`.

{labels_table(inference)}
"""
    if metrics:
        about += f"\nScores of these weights, by whoever made this package:\n\n| score | mean |\n|---|---|\n{metrics}\n"
    return f"{title}\n{about}\n## The bundle\n{LEAVING_LINK.sub(lambda link: link[1], rest)}"


def _requirements(metadata: Mapping[str, Any]) -> list[str]:
    versions = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    return [f"{name}=={version}" for name, version in versions.items()]


def _script(folder: Path, inference: dict[str, Any]) -> None:
    config = folder.with_name("inference.json")
    config.write_bytes(json.dumps(inference).encode())
    file = folder / "models" / "model.ts"  # MONAI Deploy finds the configs inside under the file's name
    in_clean_process("export", folder.parent, str(folder), str(config), str(file))
    strip_debugging(file)


def _try(archive: Path, recipe: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Use a package as those do who get it: unpack, check, infer; and its scripted network without the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        elsewhere = Path(temporary)
        folder = unpack_zip(archive, elsewhere)
        check_checksums(folder)
        (elsewhere / "alone").mkdir()
        shutil.copy(folder / "models" / "model.ts", elsewhere / "alone")
        in_clean_process("alone", elsewhere / "alone", "model.ts")
        if settings:  # a grid other than the recorded one, for the sake of time
            record_path(folder / "models" / "model.pt").unlink(missing_ok=True)
        phantom = ConfigParser(recipe).get_parsed_content()
        write_cohort(phantom, elsewhere / "data", cases=3)
        options = {
            "config_file": folder / "configs" / "inference.json",
            "dataset_dir": elsewhere / "data",
            "output_dir": elsewhere / "out",
            **settings,
        }
        in_clean_process("run", elsewhere, *(f"--{key}={value}" for key, value in options.items()))
        results = [path for path in (elsewhere / "out").iterdir() if path.suffix != ".log"]
        if not results:
            raise InputError(f"{archive.name}: inference of a synthetic case wrote no result")
        for path in results:
            if path.name.endswith("_seg.nii.gz"):
                _check_grid(path, elsewhere / "data" / "labels" / path.name.replace("_seg", ""))


def _check_grid(path: Path, label: Path) -> None:
    mask, truth = nib.load(path), nib.load(label)
    if not same_grid(mask.shape, mask.affine, truth.shape, truth.affine):
        raise InputError(f"{path.name}: the mask of a synthetic case is on another grid than the case")
