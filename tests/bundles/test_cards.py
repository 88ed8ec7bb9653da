"""Check the model cards: front matter for the Hugging Face Hub, order of the sections, length, and figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ..conftest import BUNDLES

SECTIONS = ["Use it", "Data", "Training and inference", "Published results", "Limits", "License", "References"]
WITH_WEIGHTS = ["Use it", "Data", "Results", "Training", "Limits", "License", "References"]
of_bundles = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)


def card_of(bundle: Path) -> str:
    return (bundle / "docs" / "README.md").read_text(encoding="utf-8")


@of_bundles
def test_a_card_has_at_most_150_lines(bundle: Path) -> None:
    assert len(card_of(bundle).splitlines()) <= 150


@of_bundles
def test_the_commands_of_a_card_fit_a_page(bundle: Path) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", card_of(bundle), re.MULTILINE | re.DOTALL)
    assert blocks and not [line for block in blocks for line in block.splitlines() if len(line) > 98]


@of_bundles
def test_the_sections_of_a_card_begin_with_its_use(bundle: Path) -> None:
    sections = re.findall(r"^## (.+)$", card_of(bundle), re.MULTILINE)
    shipped = (bundle / "models" / "model.pt").exists() and (bundle / "sample").exists()
    assert sections == (WITH_WEIGHTS if shipped else SECTIONS)


@of_bundles
def test_the_front_matter_of_a_card_is_that_of_the_hub(bundle: Path) -> None:
    _, front, text = card_of(bundle).split("---\n", 2)
    data = yaml.safe_load(front)
    assert {*data} == {"license", "library_name", "pipeline_tag", "tags"}
    assert data["license"] in ("apache-2.0", "cc-by-sa-4.0") and data["library_name"] == "monai"
    assert data["pipeline_tag"] == "image-segmentation" and "monai" in data["tags"]
    assert all(isinstance(tag, str) for tag in data["tags"]) and text.startswith("\n# ")


@of_bundles
def test_a_card_says_its_limits_and_shows_the_network(bundle: Path) -> None:
    text = card_of(bundle)
    assert "Not for clinical use" in text
    (figure,) = re.findall(r"!\[[^\]]+\]\((.+)\)", text)
    assert (bundle / "docs" / figure).resolve().is_file()
