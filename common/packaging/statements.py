"""Replace what a bundle without weights says of weights by what is true of its package."""

from __future__ import annotations

import re

from ..errors import InputError

STATEMENTS = (  # pattern in a bundle without weights, and the text of its package
    (r"Without\s+trained\s+weights\.", "The weights are those of whoever made this package."),
    (r";\s+no\s+trained\s+weights\b", ""),
    (r"\s\*\*No\s+trained\s+weights\s+are\s+shipped\.\*\*", ""),
    (
        r"^- \*\*Weights:\*\*\s+none\s+are\s+shipped\..*?(?=\n- |\n\n|\s*\Z)",
        "- **Weights:** `models/model.pt`, by whoever made this package. The terms of their data also apply to them.",
    ),
)
NO_WEIGHTS = re.compile(r"\b(?:no|without)\s+(?:trained\s+)?weights\b|\*\*Weights:\*\*\s+none\b", re.IGNORECASE)


def with_weights(text: str, source: str) -> str:
    """Return a text of a bundle for its package, which has weights.

    Args:
        text: text of the bundle.
        source: file or setting of the text, for messages.

    Raises:
        InputError: the text says in other words that there are no weights.
    """
    for pattern, replacement in STATEMENTS:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL | re.MULTILINE)
    if found := NO_WEIGHTS.search(text):
        raise InputError(
            f"{source}: says '{' '.join(found[0].split())}', but a package has weights; remove the sentence, or write "
            "'Without trained weights.', '**No trained weights are shipped.**' or '- **Weights:** none are shipped.', "
            "which packing replaces"
        )
    return text
