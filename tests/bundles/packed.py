"""Pack bundles with narrow networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from monai.bundle import (
    ConfigParser,
)

from common.packaging import pack_bundle

from ..workflows import BUSY, TINY


def pack_tiny(bundle: Path, out: Path, changes: dict[str, Any], **options: Any) -> Path:
    source = out.parent / f"from_{bundle.name}"
    source.mkdir(exist_ok=True)
    if not (source / "model.pt").exists():
        torch.save(BUSY[bundle.name]().state_dict(), source / "model.pt")
    overlay = source / "overlay.json"
    overlay.write_text(json.dumps({**TINY[bundle.name], **changes}))
    return pack_bundle(bundle, source / "model.pt", out, overlay, **options)


def parser_of(folder: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser["bundle_root"] = str(folder)
    return parser


def files(folder: Path) -> dict[str, str]:
    return {
        "meta_file": str(folder / "configs" / "metadata.json"),
        "config_file": str(folder / "configs" / "inference.json"),
    }
