"""Define the verbs that make and check packages: pack, verify."""

from __future__ import annotations

import logging

from ..packaging import pack_bundle, verify_package
from .arguments import bundle_folder


def pack(
    bundle: str,
    weights: str | None = None,
    out: str = "dist",
    overlay: str | None = None,
    scores: str | None = None,
    code: str = "folder",
    large_files: str | None = None,
    sign: str | None = None,
) -> None:
    """Pack a bundle and its weights into a folder and a zip file that run without this repository.

    Args:
        bundle: name in bundles/, or folder of a bundle.
        weights: model.pt of a training. Default: model.pt in the bundle's models/.
        out: folder for NAME/ and NAME_vVERSION.zip.
        overlay: JSON file with the training settings that differ from the bundle's. Keys "_meta_::NAME" change NAME in
            metadata.json.
        scores: folder of an evaluation or cross-validation of the weights, with scores.csv or the summary.json of
            nnU-Net. Its scores go into metadata.json.
        code: folder puts the code into the package. wheel writes a wheel beside a package without code.
        large_files: URL of a folder for model.pt and model.ts. The zip lacks both, and large_files.yml lists them.
        sign: PEM file of your private key, to sign the package. Needs the extra "sign".
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    archive = pack_bundle(bundle_folder(bundle), weights, out, overlay, scores, code, large_files, sign)
    print(f"{archive} and the folder beside it")


def verify(package: str, load: bool = True, key: str | None = None) -> None:
    """Check a packed bundle: compare every file with its SHA-256, and load the weights strictly.

    Loading the weights builds the network, which runs the package's code.

    Args:
        package: folder or zip file of the packed bundle.
        load: load the weights. false only checks the files and runs no code of the package.
        key: PEM file of the maker's public key, which the signature must fit. Needs the extra "sign".
    """
    signed = "" if key is None else f", {key} fits its signature"
    loaded = "the weights load" if load else "nothing of it was run"
    print(f"{verify_package(package, load, key)}: every file is as it was packed{signed}, {loaded}")
