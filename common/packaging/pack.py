"""Make a package of a bundle: read, apply settings and check, rewrite, write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import UsageError
from .contents import read_contents
from .large_files import check_url
from .rewrite import rewrite_for_package
from .settings import apply_training_settings
from .signature import read_private_key
from .write import write_package

CODE_PLACES = ("folder", "wheel")


def pack_bundle(
    bundle: str | Path,
    weights: str | Path | None = None,
    out: str | Path = "dist",
    overlay: str | Path | None = None,
    scores: str | Path | None = None,
    code: str = "folder",
    large_files: str | None = None,
    sign: str | Path | None = None,
) -> Path:
    """Make a folder and a zip of a bundle that run without this repository, and try them in a clean process.

    The package holds:

    - the configs, with the settings of the record beside the weights;
    - the code that they need, as a package ``NAME_vVERSION`` of the bundle's own;
    - the weights as ``model.pt``, and scripted as ``model.ts`` with configs and code inside;
    - the record of the training, licence, model card, data licence and ``SHA256SUMS``.

    The same input gives the same bytes, except for a signature.

    Args:
        bundle: folder of the bundle.
        weights: flat state dict of ``inference.json``'s network; None takes the bundle's ``models/model.pt``. Packing
            also takes what training left beside it, such as statistics of intensity.
        out: folder for ``NAME/`` and ``NAME_vVERSION.zip``; an unchanged package there is replaced.
        overlay: JSON with the settings of the training, if they differ from the bundle's. They are changed where
            ``inference.json`` or ``train.json`` has them, except for paths. An object ``"_meta_"``, or
            ``"_meta_::KEY"``, changes ``metadata.json``. Settings in the ``run.json`` beside the weights need no
            overlay.
        scores: evaluation of these weights, as for :func:`common.reporting.scores_file`; its mean scores become
            ``eval_metrics``.
        code: ``"folder"``, or ``"wheel"`` for a package without code and a wheel beside it, which pip installs.
        large_files: URL of the folder that will have ``model.pt`` and ``model.ts``. The zip then lacks both and has
            ``large_files.yml``.
        sign: PEM file of the private key that signs the package; None leaves it unsigned.

    Returns:
        path of the zip.

    Raises:
        UsageError: ``code`` or ``large_files`` has another form.
        InputError: something is missing or does not fit, ``out`` holds other files of these names or cannot be written,
            or the package fails its trial.
    """
    if code not in CODE_PLACES:
        raise UsageError(f"--code {code}: expected {' or '.join(CODE_PLACES)}")
    if large_files is not None:
        check_url(large_files)
    signer = None if sign is None else read_private_key(Path(sign))
    contents = read_contents(
        Path(bundle).resolve(),
        None if weights is None else Path(weights),
        None if overlay is None else Path(overlay),
        None if scores is None else Path(scores),
    )
    contents = apply_training_settings(contents)
    contents = rewrite_for_package(replace(contents, large_files=large_files), code == "wheel")
    return write_package(contents, Path(out).resolve(), signer)
