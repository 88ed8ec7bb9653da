"""A labelled case, and what the recipes of one have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import InputError


@dataclass
class Phantom:
    """One labelled case.

    Args:
        images: float32 ``(x, y, z)`` per modality, whole numbers within int16; a CT in HU.
        label: uint8 on the same grid.
        affine: 4x4, from voxels to RAS+ millimetres.
    """

    images: dict[str, np.ndarray]
    label: np.ndarray
    affine: np.ndarray


@dataclass(kw_only=True)
class PhantomRecipe:
    """What the recipes of a case have in common.

    Args:
        modalities: those to return, in order; each is the same as in the full set.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.

    Raises:
        InputError: an unknown or repeated modality, or too small a field of view.
    """

    modalities: Sequence[str]
    size: Sequence[int]
    spacing: Sequence[float]

    all_modalities: ClassVar[tuple[str, ...]]
    labels: ClassVar[Mapping[int, str]]
    classes: ClassVar[tuple[str, ...]] = ()  # of a case as a whole; none where there is nothing to classify
    case_fields: ClassVar[Mapping[str, str]] = {}  # what a data list says of each case besides its files and its class
    default_cases: ClassVar[int] = 12  # of a cohort
    smallest_field_of_view: ClassVar[tuple[float, float, float]]  # mm

    def __post_init__(self) -> None:
        self.modalities = tuple(self.modalities)
        self.size = tuple(self.size)
        self.spacing = tuple(self.spacing)
        known = all(m in self.all_modalities for m in self.modalities)
        if not self.modalities or not known or len(set(self.modalities)) < len(self.modalities):
            expected = ", ".join(self.all_modalities)
            raise InputError(f"modalities {list(self.modalities)}: expected some of {expected}, each once")
        extent = [n * s for n, s in zip(self.size, self.spacing)]
        smallest = self.smallest_field_of_view
        if not len(self.size) == len(self.spacing) == 3 or any(e < s for e, s in zip(extent, smallest)):
            raise InputError(
                f"size {self.size} with spacing {self.spacing}: expected three each and a field of view of at least "
                f"{' x '.join(f'{s:g}' for s in smallest)} mm"
            )

    def __call__(self, rng: np.random.Generator, class_name: str | None = None) -> Phantom:
        """One case; all of its randomness comes from ``rng``.

        Args:
            rng: source of the randomness.
            class_name: one of ``classes``; None where there are none.

        Raises:
            InputError: another class.
        """
        if class_name not in (self.classes or (None,)):
            expected = f"one of {', '.join(self.classes)}" if self.classes else "none, this phantom has no classes"
            raise InputError(f"class {class_name}: expected {expected}")
        return self._draw(rng, class_name)

    def _draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        raise NotImplementedError
