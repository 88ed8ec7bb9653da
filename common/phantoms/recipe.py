"""Define a synthetic labelled case and the base class of the recipes that draw one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np

from ..errors import InputError


@dataclass
class Phantom:
    """Hold one labelled case.

    Args:
        images: modality -> float32 ``(x, y, z)``, whole numbers within the range of int16; a CT in HU.
        label: uint8 ``(x, y, z)`` on the same grid.
        affine: 4x4, from voxels to RAS+ millimetres.
    """

    images: dict[str, np.ndarray]
    label: np.ndarray
    affine: np.ndarray


@dataclass(kw_only=True)
class PhantomRecipe:
    """Draw random labelled cases of one kind; a subclass says what it can draw and implements :meth:`draw`.

    Args:
        modalities: names of the modalities to return, in order; each is the same as in the full set.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.
        noise: factor of the noise; more of it makes a cohort harder.

    Raises:
        InputError: a modality is unknown or repeated, the field of view is too small, or a factor is negative.
    """

    modalities: Sequence[str]
    size: Sequence[int]
    spacing: Sequence[float]
    noise: float = field(default=1.0, repr=False)

    all_modalities: ClassVar[tuple[str, ...]] = ()  # empty where any name is one
    labels: ClassVar[Mapping[int, str]]
    classes: ClassVar[tuple[str, ...]] = ()  # classes of a whole case; empty where there is nothing to classify
    case_fields: ClassVar[Mapping[str, str]] = {}  # more fields of each case in the data list
    default_cases: ClassVar[int] = 12  # size of a cohort
    smallest_field_of_view: ClassVar[tuple[float, float, float]]  # mm

    def __post_init__(self) -> None:
        self.modalities = tuple(self.modalities)
        self.size = tuple(self.size)
        self.spacing = tuple(self.spacing)
        known = not self.all_modalities or all(m in self.all_modalities for m in self.modalities)
        if not self.modalities or not known or len(set(self.modalities)) < len(self.modalities):
            expected = ", ".join(self.all_modalities)
            raise InputError(
                f"modalities {list(self.modalities)}: expected at least one of {expected}, each at most once"
            )
        extent = [n * s for n, s in zip(self.size, self.spacing)]
        smallest = self.smallest_field_of_view
        if not len(self.size) == len(self.spacing) == 3 or any(e < s for e, s in zip(extent, smallest)):
            raise InputError(
                f"size {self.size} with spacing {self.spacing}: expected three numbers each and a field of view of at "
                f"least {' x '.join(f'{s:g}' for s in smallest)} mm"
            )

        for name, factor in self._factors().items():
            if not factor >= 0:
                raise InputError(f"{name} {factor}: expected a factor of at least 0")

    def _factors(self) -> dict[str, float]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if not entry.repr}

    @property
    def description(self) -> str:
        """Return what identifies a cohort of the recipe: the recipe, and its factors that are not 1."""
        return str(self) + "".join(f", {name} {factor:g}" for name, factor in self._factors().items() if factor != 1)

    def __call__(self, rng: np.random.Generator, class_name: str | None = None) -> Phantom:
        """Draw one case.

        Args:
            rng: the only source of randomness.
            class_name: one of ``classes``; None where there are none.

        Raises:
            InputError: the phantom does not have this class.
        """
        if class_name not in (self.classes or (None,)):
            expected = (
                f"one of {', '.join(self.classes)}" if self.classes else "None, since this phantom has no classes"
            )
            raise InputError(f"class {class_name}: expected {expected}")
        return self.draw(rng, class_name)

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        """Draw one case of a valid class; each subclass implements this."""
        raise NotImplementedError
