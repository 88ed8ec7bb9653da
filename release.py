"""Check that a release is one: ``python -m release`` compares versions, changelogs, citation and tag."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent


def faults(root: Path) -> list[str]:
    """Return what does not agree in the files of a repository, one line each.

    Args:
        root: folder with ``pyproject.toml``, ``CITATION.cff``, ``CHANGELOG.md`` and ``bundles``.
    """
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = []
    cited = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    if cited is None or cited[1] != version:
        stated = "none" if cited is None else cited[1]
        found.append(f"CITATION.cff: version {stated}, expected {version}, that of pyproject.toml")
    dated = re.findall(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if dated[:1] != [version]:
        latest = dated[0] if dated else "none"
        found.append(f"CHANGELOG.md: the latest dated version is {latest}, expected {version}, that of pyproject.toml")
    for path in sorted(root.glob("bundles/*/configs/metadata.json")):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        if metadata["version"] not in metadata["changelog"]:
            where = path.relative_to(root).as_posix()
            found.append(f"{where}: version {metadata['version']} is not in its changelog; add an entry")
    return found


def unreleased(root: Path) -> list[str]:
    """Return what a release still lacks: entries under a version, a commit of all changes, the tag of the version."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = []
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    pending = text.partition("## [Unreleased]")[2].partition("\n## [")[0].strip()
    if pending:
        found.append("CHANGELOG.md: entries under [Unreleased]; give them a version and a date")
    if changes := _git(root, "status", "--porcelain"):
        found.append(f"{changes.splitlines()[0].strip()}: not committed; commit all changes")
    tag = f"v{version}"
    if tag not in _git(root, "tag", "--points-at", "HEAD").splitlines():
        found.append(f"tag {tag}: not at this commit; run git tag --annotate {tag} when the rest agrees")
    return found


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Print what does not agree and exit with 1, or print that the release is complete."""
    found = faults(ROOT) + unreleased(ROOT)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    if found:
        raise SystemExit(1)
    print("versions, changelogs, citation and tag agree")


if __name__ == "__main__":
    main()
