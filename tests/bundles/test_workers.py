"""Check that data sets reach worker processes that start anew (spawn, forkserver), which get them pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

from ..workflows import bundles


@bundles
def test_data_sets_can_be_pickled(workflow: Callable, bundle: Path) -> None:
    flow = workflow(bundle, "train", cache_rate=0.0)
    for part in ("train", "validate"):
        dataset = flow.parser.get_parsed_content(f"{part}::dataset")
        assert len(pickle.loads(pickle.dumps(dataset))) == len(dataset)
