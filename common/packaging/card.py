"""Make the model card of a package."""

from __future__ import annotations

import re

from .checksums import LIST
from .contents import CARD, Contents
from .labels import labels_table
from .statements import with_weights
from .wheel import ENTRY

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
    wheel = metadata.get(ENTRY)
    install = "" if wheel is None else f"pip install {wheel['file']}\n"
    code = "" if wheel is None else f" The wheel has the code, and the SHA-256 `{wheel['sha256']}`."
    download = "" if contents.large_files is None else "python -m monai.bundle download_large_files --bundle_path .\n"
    run = f"python -m monai.bundle run --config_file {contents.name}/configs/inference.json"
    content = "configs, code, and weights" if wheel is None else "configs and weights"
    where = "The first line runs in this folder" if not download else "The first two lines run in this folder"
    about = f"""
## This package

Version {metadata["version"]}: {content}. Whoever made this package trained them. The text below
describes the bundle as its collection has it. Not for clinical use.

```
{download}sha256sum --check {LIST}
pip install {" ".join(f"{name}=={version}" for name, version in contents.requirements.items())}
{install}{run} --dataset_dir SCANS --output_dir OUT
{run.replace("inference", "report")} --dataset_dir SCANS --output_dir OUT
```

{where} (macOS: `shasum -a 256 --check`), the last two from any folder. `SCANS` holds the
scans, `OUT` gets the results. The last line writes `OUT/report.html`, which shows them in a browser. The same line
with `picture.json` draws a picture of each mask. Both need `matplotlib`; the page also needs `jinja2`. DICOM also needs
`itk` and `pydicom`, and DICOM segmentations need `highdicom`.
`models/model.pt` has the SHA-256 `{weights_digest}`.{code}

{labels_table(contents.inference)}
"""
    scores = {name: value for name, value in metadata["eval_metrics"].items() if value is not None}
    if scores:
        rows = "\n".join(f"| {name} | {value} |" for name, value in scores.items())
        about += f"\nScores of these weights, by the maker of this package:\n\n| score | mean |\n|---|---|\n{rows}\n"
    return f"{front}{title}\n{about}\n## The bundle\n{LEAVING_LINK.sub(lambda link: link[1], rest)}"
