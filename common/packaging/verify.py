"""Whether a packed bundle is whole, unchanged and loadable."""

from __future__ import annotations

import os
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from ..engines.checkpoints import read_weights
from ..errors import InputError
from ..files import read_json
from .archive import check_expansion, unpack_zip
from .checksums import check_checksums
from .process import in_clean_process


def verify_package(package: str | Path, load: bool = True) -> str:
    """Check a packed bundle: every file against its SHA-256, then the weights, loaded strictly in a clean process.

    Loading builds the network, which runs the package's code.

    The check sums show that a package arrived whole. They do not show who made it: a bundle is code, and whoever can
    replace a file can replace the list too. Compare the zip's own SHA-256 with what its maker says.

    Args:
        package: folder or zip of :func:`pack_bundle`.
        load: load the weights; otherwise nothing of the package runs.

    Returns:
        name and version of the bundle.

    Raises:
        InputError: what is wrong, in one line.
    """
    package = Path(package)
    if not package.exists():
        raise InputError(f"{package}: no such folder or zip")
    if package.is_dir():
        return _verify_folder(package.resolve(), load)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return _verify_folder(unpack_zip(package, Path(temporary)), load)
        except InputError as error:
            raise InputError(str(error).replace(f"{temporary}{os.sep}", f"{package}: ")) from error


def _verify_folder(folder: Path, load: bool) -> str:
    check_checksums(folder)
    for path in sorted((folder / "models").glob("model.*")):  # of PyTorch, zips too
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            check_expansion(path, archive)
    read_weights(folder / "models" / "model.pt")
    if load:
        in_clean_process("load", folder.parent, str(folder))
    metadata = read_json(folder / "configs" / "metadata.json")
    return f"{folder.name} {metadata['version']}"
