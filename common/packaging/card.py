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
USE = re.compile(r"## Use it\n.*?(?=^## )", re.DOTALL | re.MULTILINE)  # its commands need the collection
COLUMNS = 98  # of a command that fits the pages of GitHub and of the Hugging Face Hub
LEAVING_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+[^)]*\)")


def package_card(contents: Contents, weights_digest: str) -> str:
    """Return the bundle's card with a section on the package below its title, in place of the use of the bundle.

    It has no figures, and no links that leave the folder.

    Args:
        contents: what goes into the package.
        weights_digest: SHA-256 of ``models/model.pt``.
    """
    metadata = contents.metadata
    card = FIGURE.sub("", with_weights(contents.files[CARD].decode(), str(contents.bundle / CARD)))
    matter = FRONT_MATTER.match(card)
    front = matter[0] if matter else ""
    title, _, rest = card.removeprefix(front).partition("\n")
    rest = USE.sub("", rest)
    wheel = metadata.get(ENTRY)
    install = "" if wheel is None else f"pip install {wheel['file']}\n"
    code = "" if wheel is None else f" The wheel has the code, and the SHA-256 `{wheel['sha256']}`."
    download = "" if contents.large_files is None else "python -m monai.bundle download_large_files --bundle_path .\n"
    content = "configs, code, and weights" if wheel is None else "configs and weights"
    pip = "pip install " + " ".join(f"{name}=={version}" for name, version in contents.requirements.items())
    run = "python -m monai.bundle run --config_file"
    evaluation = "\"['$P/configs/train.json','$P/configs/evaluate.json']\""
    infer, report, evaluate, train = (
        _wrapped(f"{run} {config} {options}")
        for config, options in (
            ("$P/configs/inference.json", "--dataset_dir SCANS --output_dir OUT"),
            ("$P/configs/report.json", "--dataset_dir SCANS --output_dir OUT"),
            (evaluation, "--dataset_dir DATA --output_dir SCORES"),
            ("$P/configs/train.json", "--dataset_dir DATA --ckpt_dir RUN"),
        )
    )
    about = f"""
## This package

Version {metadata["version"]}: {content}. Whoever made this package trained them. The text below
describes the bundle as its collection has it. Not for clinical use.

```
# once, in this folder (macOS: shasum -a 256 --check)
{download}sha256sum --check {LIST}
{_wrapped(pip)}
{install}# infer, then look at the results; in the folder above this one
P={contents.name}
{infer}
{report}
# score labelled cases; train on them
{evaluate}
{train}
```

`SCANS` holds the scans. `DATA` holds a `dataset.json`, which lists image and label of each case under `training`,
`validation` and `test`. `OUT/report.html` opens in a browser. The same command with `picture.json` draws a picture of
each mask. Both need `matplotlib`; the page also needs `jinja2`. DICOM needs `itk` and `pydicom`, and DICOM
segmentations need `highdicom`. `models/model.pt` has the SHA-256 `{weights_digest}`.{code}

{labels_table(contents.inference)}
"""
    scores = {name: value for name, value in metadata["eval_metrics"].items() if value is not None}
    if scores:
        rows = "\n".join(f"| {name} | {value} |" for name, value in scores.items())
        about += f"\nScores of these weights, by the maker of this package:\n\n| score | mean |\n|---|---|\n{rows}\n"
    return f"{front}{title}\n{about}\n## The bundle\n{LEAVING_LINK.sub(lambda link: link[1], rest)}"


def _wrapped(command: str) -> str:
    """Return a command in lines that end in a backslash, broken before options and requirements."""
    lines = [""]
    for word in re.split(r" (?=--|[\w-]+==)", command):
        if lines[-1] and len(lines[-1]) + len(word) + 3 > COLUMNS:  # a space before the word, and one with a backslash
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)
