"""Make the model card of a package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .checksums import LIST
from .contents import CARD, Contents
from .labels import labels_table
from .statements import with_weights

FRONT_MATTER = re.compile(r"---\n.*?\n---\n+", re.DOTALL)
FIGURE = re.compile(r"!\[[^\]]*\]\((?:\.\./)+[^)]*\)\n+")  # the collection's; a package has no figures
LEAVING_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")


def package_card(contents: Contents, weights_digest: str) -> str:
    """Return the bundle's card with a section on the package below its title, without links that leave the folder.

    Args:
        contents: what goes into the package.
        weights_digest: SHA-256 of ``models/model.pt``.
    """
    metadata = contents.metadata
    card = FIGURE.sub("", with_weights(contents.files[CARD].decode(), str(contents.bundle / CARD)))
    matter = FRONT_MATTER.match(card)
    front = matter[0] if matter else ""
    title, _, rest = card.removeprefix(front).partition("\n")
    about = f"""
## This package

Version {metadata["version"]}: configs, code, and weights. Whoever made this package trained them. The text below
describes the bundle as its collection has it. Not for clinical use.

```
sha256sum --check {LIST}
pip install {" ".join(_requirements(metadata))}
python -m monai.bundle run --config_file {contents.name}/configs/inference.json --dataset_dir SCANS --output_dir OUT
```

The first line runs in this folder (macOS: `shasum -a 256 --check`), the last line from any folder. `SCANS` holds the
scans, `OUT` gets the results. DICOM also needs `itk` and `pydicom`, and DICOM segmentations need `highdicom`.
`models/model.pt` has the SHA-256 `{weights_digest}`.

{labels_table(contents.inference)}
"""
    scores = {name: value for name, value in metadata["eval_metrics"].items() if value is not None}
    if scores:
        rows = "\n".join(f"| {name} | {value} |" for name, value in scores.items())
        about += f"\nScores of these weights, by the maker of this package:\n\n| score | mean |\n|---|---|\n{rows}\n"
    return f"{front}{title}\n{about}\n## The bundle\n{LEAVING_LINK.sub(lambda link: link[1], rest)}"


def _requirements(metadata: Mapping[str, Any]) -> list[str]:
    versions = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    return [f"{name}=={version}" for name, version in versions.items()]
