"""Worker processes that start afresh (spawn, forkserver) get their data set pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from ..workflows import MAMTLN_CT, MMFNET, MPUNET, MULTIRNET, OMNET


@pytest.mark.parametrize("bundle", [MMFNET, OMNET, MAMTLN_CT, MPUNET, MULTIRNET], ids=lambda bundle: bundle.name)
def test_data_sets_can_be_pickled(workflow: Callable, bundle: Path) -> None:
    flow = workflow(bundle, "train", cache_rate=0.0)
    for part in ("train", "validate"):
        dataset = flow.parser.get_parsed_content(f"{part}::dataset")
        assert len(pickle.loads(pickle.dumps(dataset))) == len(dataset)
