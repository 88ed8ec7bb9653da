"""Replace the class of a case by its index."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..errors import InputError


class ClassIndexd(MapTransform):
    """Replace the class of a case, a name or a number in its data list, by its index, an int.

    Indices collate to ``(B,)``, int64.

    Args:
        keys: entry of the class.
        classes: all names in the order of the network's outputs.

    Raises:
        InputError: if a case has no class or an unknown class.
    """

    def __init__(
        self, keys: KeysCollection = "class", *, classes: Sequence[str], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes = tuple(classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.keys:
            if key in d:
                d[key] = self._index(d[key], d.get("case"))
            elif not self.allow_missing_keys:
                raise InputError(
                    f"case {d.get('case')}: no '{key}', expected {self._expected()}; give the classes to "
                    "`python -m common datalist` with --classes"
                )
        return d

    def _index(self, given: Any, case: Any) -> int:
        if isinstance(given, str) and given in self.classes:
            return self.classes.index(given)
        if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(self.classes):
            return given
        raise InputError(f"case {case}: class {given!r}, expected {self._expected()}; correct it in the data list")

    def _expected(self) -> str:
        return "one of " + ", ".join(f"{name} ({index})" for index, name in enumerate(self.classes))
