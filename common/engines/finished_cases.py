"""Load finished cases while the next case is read."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .case_evaluator import CaseEvaluator


class FinishedCases:
    """Load finished cases; read the next batch while the current one is in use."""

    def __init__(self, evaluator: CaseEvaluator, loader: Iterable) -> None:
        self.evaluator = evaluator
        self.loader = loader
        self.cases: Generator[tuple[dict, dict]] | None = None

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[dict, dict]]:
        self.cases = self.evaluator.finished_cases(self._read_ahead())
        return self.cases

    def close(self) -> None:
        """End the threads of an iteration that an error or an interruption ended."""
        if self.cases is not None:
            self.cases.close()

    def listed_names(self) -> list[str]:
        """Return the names of the cases if the loader's data set has a list of them."""
        dataset = getattr(self.loader, "dataset", None)
        cases = getattr(dataset, "data", dataset)
        return [case["case"] for case in cases if "case" in case] if isinstance(cases, list) else []

    def _read_ahead(self) -> Generator[dict]:
        batches = iter(self.loader)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = reader.submit(next, batches, None)
                yield batch
                del batch
