"""Define the verb that lists the bundles."""

from __future__ import annotations

from ..bundle_list import bundle_table


def list_bundles(json: bool = False) -> None:
    """List the bundles with their versions, modalities and labels.

    Args:
        json: print a JSON array for programs. Each object has name, version, task, modalities in the order of the
            network, labels with their values, and weights, whether a model.pt is there.
    """
    print(bundle_table(json))
