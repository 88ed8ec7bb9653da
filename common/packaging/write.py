"""Write a package whole or not at all (last stage of packing)."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import PARTIAL, check_replaceable, failures_of_writing, make_folder, sha256
from .archive import strip_debugging, unpack_zip, write_zip
from .checksums import LIST, check_checksums, foreign_files, read_checksums, write_checksums
from .contents import Contents
from .large_files import LARGE, large_files, write_large_files
from .process import in_clean_process
from .signature import sign_package
from .trial import try_package
from .wheel import installed_wheel, is_unchanged_wheel, wheel_file

logger = logging.getLogger(__name__)


def write_package(contents: Contents, out: Path, signer: Any = None) -> Path:
    """Write the folder and the zip of a package, and its wheel if it has one, once it has passed its trial.

    Everything is made under a temporary name in ``out``. A failure leaves ``out`` as it was.

    Args:
        contents: what goes into the package.
        out: folder for ``NAME/``, ``NAME_vVERSION.zip`` and the wheel; an unchanged package there is replaced.
        signer: return value of ``read_private_key``; None leaves the package unsigned.

    Returns:
        path of the zip.

    Raises:
        InputError: ``out`` holds other files of these names or cannot be written, the network cannot be scripted, or
            the package fails its trial.
    """
    place, zip_place = out / contents.name, out / f"{contents.name}_v{contents.version}.zip"
    wheel_place = out / wheel_file(contents.name, contents.version)
    _check_replaceable_folder(place)
    make_folder(out)
    with failures_of_writing(out), tempfile.TemporaryDirectory(dir=out, prefix=PARTIAL) as temporary:
        check_replaceable(zip_place, _is_package)
        folder, archive = Path(temporary) / place.name, Path(temporary) / zip_place.name
        made = {folder: place, archive: zip_place}
        if contents.wheel is not None:
            check_replaceable(wheel_place, is_unchanged_wheel)
            made[Path(temporary) / wheel_place.name] = wheel_place
            (Path(temporary) / wheel_place.name).write_bytes(contents.wheel)
        logger.info("%s %s: code, configs, weights", contents.name, contents.version)
        for name, content in contents.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        with installed_wheel(contents.metadata, Path(temporary)) as code:
            logger.info("scripting the network")
            try:
                script_network(folder, contents.scripted_config, code)
            except InputError as error:
                reason = str(error).replace(f"{folder}{os.sep}", "")
                raise InputError(
                    f"{contents.weights}: the bundle's network could not be scripted with these weights ({reason}); if "
                    "they were trained with other settings, give those with --overlay"
                ) from error
            if contents.large_files is not None:
                write_large_files(folder, contents.large_files)
            write_checksums(folder)
            if signer is not None:
                sign_package(folder, signer)
            files = {f.relative_to(folder.parent).as_posix(): f for f in folder.rglob("*") if f.is_file()}
            write_zip(archive, files)
            logger.info(
                "trying the package in a clean process: loading, one synthetic case, the scripted network alone"
            )
            try_package(archive, contents.phantom, contents.trial, contents.own_transforms, code)
        if contents.large_files is not None:
            write_zip(archive, {name: f for name, f in files.items() if f not in [folder / n for n in LARGE]})
        _check_replaceable_folder(place)  # once more: the trial takes a minute, in which a user may add a file
        check_replaceable(zip_place, _is_package)
        _replace(made, Path(temporary) / "before")
        return zip_place


def script_network(folder: Path, inference: Mapping[str, Any], code: Path | None = None) -> None:
    """Write ``models/model.ts`` of a package: the scripted network with its configs inside.

    Args:
        folder: folder of the package, which holds everything else.
        inference: ``inference.json`` that goes into the file; MONAI Deploy reads it there.
        code: folder where the package's wheel is installed, or None.

    Raises:
        InputError: the network does not take the weights, or cannot be scripted.
    """
    config = folder.with_name("inference.json")
    config.write_bytes(json.dumps(inference).encode())
    file = folder / "models" / "model.ts"  # MONAI Deploy finds the configs inside only under this name
    in_clean_process("export", folder.parent, str(folder), str(config), str(file), code=code)
    strip_debugging(file)


def _replace(made: Mapping[Path, Path], before: Path) -> None:
    """Move what was made to its places; if one move fails, put back what was there.

    Args:
        made: path to its place.
        before: folder for what is replaced.
    """
    before.mkdir()
    with ExitStack() as undo:
        for path, place in made.items():
            if place.exists():
                place.replace(before / place.name)
                undo.callback((before / place.name).replace, place)
            path.replace(place)
            undo.callback(place.replace, path)
        undo.pop_all()


def _check_replaceable_folder(folder: Path) -> None:
    """Refuse a folder that is not a packed bundle, or one with files that packing did not write."""
    if folder.exists() and not (folder / LIST).is_file():
        raise InputError(f"{folder}: exists, and is not a packed bundle; choose another --out")
    if folder.exists():
        listed = read_checksums(folder)
        kept = [path for path in foreign_files(folder, listed) if path.parent.name != "__pycache__"]
        if kept:
            raise InputError(f"{kept[0]}: not a file of the package that would be replaced; move it elsewhere")
        for file, digest in listed.items():
            if (folder / file).is_file() and sha256(folder / file) != digest:
                raise InputError(f"{folder / file}: changed since it was packed; move it elsewhere")


def _is_package(archive: Path) -> bool:
    """Return whether a zip is a packed bundle, unchanged."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = unpack_zip(archive, Path(temporary))
            check_checksums(folder, large_files(folder))
        except InputError:
            return False
    return True
