"""Check that a packed bundle is whole, unchanged and loadable."""

from __future__ import annotations

import os
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from ..engines.checkpoints import read_weights
from ..errors import InputError
from ..files import read_json
from ..record import record_of
from .archive import check_expansion, unpack_zip
from .checksums import check_checksums
from .large_files import LIST as LARGE_LIST
from .large_files import large_files
from .process import in_clean_process
from .signature import check_signature
from .wheel import installed_wheel


def verify_package(package: str | Path, load: bool = True, key: str | Path | None = None) -> str:
    """Compare every file of a packed bundle with its SHA-256, then load the weights strictly in a clean process.

    Loading builds the network, which runs the package's code.

    The check sums show that a package arrived whole. They do not show who made it: whoever can replace a file can
    replace the list too. A signature that fits the maker's key shows it. Without one, compare the zip's own SHA-256
    with the one that its maker publishes.

    A package without code needs its wheel: in the folder of the package, or installed.

    Args:
        package: folder or zip of :func:`pack_bundle`.
        load: whether to load the weights; False runs no code of the package.
        key: PEM file with the maker's public key; the package must have a signature that fits it. None checks no
            signature.

    Returns:
        name and version of the bundle.

    Raises:
        InputError: a check failed; the message has one line.
    """
    package = Path(package)
    if not package.exists():
        raise InputError(f"{package}: no such folder or zip")
    if package.is_dir():
        return _verify_folder(package.resolve(), package.resolve().parent, load, key)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return _verify_folder(unpack_zip(package, Path(temporary)), package.parent, load, key)
        except InputError as error:
            raise InputError(str(error).replace(f"{temporary}{os.sep}", f"{package}: ")) from error


def _verify_folder(folder: Path, place: Path, load: bool, key: str | Path | None) -> str:
    """Verify a folder, with a wheel from the place of the package."""
    large = large_files(folder)
    check_checksums(folder, large)
    if missing := [name for name in large if not (folder / name).exists()]:
        raise InputError(
            f"{folder / missing[0]}: not in this package, which lists it in {LARGE_LIST}; unpack it, run python -m "
            "monai.bundle download_large_files --bundle_path FOLDER, and verify the folder"
        )
    if key is not None:
        check_signature(folder, Path(key))
    for path in sorted((folder / "models").glob("model.*")):  # PyTorch writes zips, too
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            check_expansion(path, archive)
    read_weights(folder / "models" / "model.pt")
    record_of(folder / "models" / "model.pt")
    path = folder / "configs" / "metadata.json"
    metadata = read_json(path)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("version"), str):
        raise InputError(f"{path}: expected the metadata of a bundle with its version; get the package again")
    if load:
        with installed_wheel(metadata, place) as code:
            in_clean_process("load", folder.parent, str(folder), code=code)
    return f"{folder.name} {metadata['version']}"
