"""Load finished cases while the next case is read."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from torch.utils.data import SequentialSampler

from ..errors import InputError

if TYPE_CHECKING:
    from .case_evaluator import CaseEvaluator


class FinishedCases:
    """Load finished cases; read the next batch while the current one is in use."""

    def __init__(self, evaluator: CaseEvaluator, loader: Iterable) -> None:
        self.evaluator = evaluator
        self.loader = loader
        self.cases: Generator[tuple[dict, dict]] | None = None
        self._given_up: set[str] = set()

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
        batches, names = iter(self.loader), iter(self._names_in_order())
        self._given_up = set()
        ahead = not self.evaluator.one_at_a_time
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, batches, names)
            while (batch := coming.result()) is not None:
                if ahead:
                    coming = reader.submit(self._read, batches, names)
                yield batch
                del batch
                if not ahead:
                    coming = reader.submit(self._read, batches, names)

    def _names_in_order(self) -> list[str]:
        """Return the names of the cases in the order in which the loader reads them, or nothing if it is unknown."""
        in_order = isinstance(getattr(self.loader, "sampler", None), SequentialSampler)
        return self.listed_names() if in_order and not getattr(self.loader, "num_workers", 0) else []

    def _read(self, batches: Iterator[dict], names: Iterator[str]) -> dict | None:
        """Read the next case; a case that takes too long has an error."""
        # the limit may have ended an earlier try before the loader had counted its case, which comes again then
        coming = (batch for batch in batches if batch["case"][0] not in self._given_up)
        name = next(names, None)
        if name is None:
            return next(coming, None)
        self.evaluator.start(name)
        try:
            with self.evaluator.clock.working(name):
                return next(coming, None)
        except InputError as error:
            self._given_up.add(name)
            return {"case": [name], "error": [str(error)]}
