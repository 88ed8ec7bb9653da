"""Test statements on weights in the texts of every bundle and in made texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import InputError
from common.packaging.statements import with_weights

from ..workflows import BUNDLES


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_no_text_of_a_package_denies_its_weights(bundle: Path) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    texts = [metadata["description"], *metadata["changelog"].values(), card]
    changed = [with_weights(text, "a text") for text in texts]
    ships_weights = (bundle / "models" / "model.pt").is_file() and "with trained weights" in card
    assert [new != old for old, new in zip(texts, changed)] == [not ships_weights] * len(texts)
    assert "none are shipped. The terms of your" not in changed[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A network. Without trained weights. Not for clinical use.", "A network. The weights are those of whoever"),
        ("training, tables; no\n  trained weights", "training, tables"),
        ("It is tested. **No trained\nweights are shipped.** No data.", "It is tested. No data."),
        ("- **Weights:** none\n  are shipped. Yours\n  are yours.\n- **Data:** none.", "by whoever made"),
        ("with trained weights", "with trained weights"),
    ],
)
def test_a_statement_is_found_across_line_breaks(text: str, expected: str) -> None:
    changed = with_weights(text, "README.md")
    assert expected in changed and "none\n" not in changed and "Yours" not in changed


@pytest.mark.parametrize("text", ["It has no weights.", "shipped without\ntrained weights", "- **Weights:** none"])
def test_other_words_for_no_weights_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"README\.md: says '.*(no|without|none).*a package has weights; remove"):
        with_weights(text, "README.md")
