"""Read what a study claims and compares; ``studies/definitions`` has a JSON file for each study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import InputError, UsageError
from common.files import read_json

ROOT = Path(__file__).parents[1]
DEFINITIONS = Path(__file__).parent / "definitions"
BETTER, AS_GOOD = "better", "as good"


@dataclass(frozen=True)
class Score:
    """Define a score of a case; a larger value is better.

    Args:
        columns: beginning of the names of columns in ``scores.csv``, of which the mean counts; or ``"true class"`` for
            the probability of the true class.
        effect: smallest difference that counts.
        sd: stated standard deviation over cases of the difference between two arms.
    """

    columns: str
    effect: float
    sd: float


@dataclass(frozen=True)
class Claim:
    """Define a claim on two arms.

    Args:
        text: the claim.
        published: result in the paper.
        first: arm that is claimed to be better, or as good.
        second: arm that it is compared with.
        score: name of the score.
        kind: ``"better"``, or ``"as good"`` if ``first`` may be worse by less than the effect.
    """

    text: str
    published: str
    first: str
    second: str
    score: str
    kind: str = BETTER


@dataclass(frozen=True)
class Cases:
    """Define the cases of a study and the settings that they need.

    Args:
        name: name of the data in tables.
        training, validation, test: numbers of cases.
        carries: what in the cases carries the claim.
        trivial: what would make the claim trivial.
        recipe: phantom, or None for the cases of ``--dataset_dir``.
        modalities: channels of the cases of ``--dataset_dir``.
        settings: settings of every arm; they go over its overlays.
        arms: further settings of single arms.
        without: arms that these cases leave out.
    """

    name: str
    training: int
    validation: int
    test: int
    carries: str
    trivial: str
    recipe: Mapping[str, Any] | None = None
    modalities: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    without: Sequence[str] = ()

    @property
    def number(self) -> int:
        """Return the number of all cases."""
        return self.training + self.validation + self.test


@dataclass(frozen=True)
class Study:
    """Define a study; the JSON file has the same names.

    Args:
        name: name of the study.
        title: network and question.
        bundle: name of the bundle.
        hours: time for all arms with one seed.
        scores: scores by name.
        arms: for each arm, its overlays: files in ``configs`` of the bundle, and objects with settings.
        equal_time: arms that make fewer or more updates than the first arm, in the same time.
        claims: claims on the arms.
        phantoms: synthetic cases.
        real: cases of ``--dataset_dir``, or None if the network does not suit such data.
    """

    name: str
    title: str
    bundle: str
    hours: float
    scores: Mapping[str, Score]
    arms: Mapping[str, Sequence[str | Mapping[str, Any]]]
    claims: Sequence[Claim]
    phantoms: Cases
    real: Cases | None = None
    equal_time: Sequence[str] = ()

    def __post_init__(self) -> None:
        for claim in self.claims:
            for kind, name, known in (
                ("arm", claim.first, self.arms),
                ("arm", claim.second, self.arms),
                ("score", claim.score, self.scores),
                ("kind", claim.kind, (BETTER, AS_GOOD)),
            ):
                if name not in known:
                    raise InputError(f"{self.name}: {kind} '{name}' of a claim; expected one of {', '.join(known)}")
        cases = [self.phantoms, *([self.real] if self.real else [])]
        for name in (*self.equal_time, *(arm for data in cases for arm in (*data.arms, *data.without))):
            if name not in self.arms:
                raise InputError(f"{self.name}: unknown arm '{name}'; expected one of {', '.join(self.arms)}")
        for overlay in (overlay for overlays in self.arms.values() for overlay in overlays):
            if isinstance(overlay, str) and not (self.configs / overlay).is_file():
                raise InputError(f"{self.name}: {self.configs / overlay} is missing; expected an overlay of the bundle")

    def arms_on(self, cases: Cases) -> list[str]:
        """Return the arms that run on these cases."""
        return [arm for arm in self.arms if arm not in cases.without]

    def claims_on(self, cases: Cases) -> list[Claim]:
        """Return the claims on arms that run on these cases."""
        return [claim for claim in self.claims if not {claim.first, claim.second} & {*cases.without}]

    def scores_on(self, cases: Cases) -> dict[str, Score]:
        """Return the scores that these claims need."""
        needed = {claim.score for claim in self.claims_on(cases)}
        return {name: score for name, score in self.scores.items() if name in needed}

    def cases_called(self, name: str) -> Cases:
        """Return the cases with a name."""
        return self.phantoms if self.real is None or name == self.phantoms.name else self.real

    @property
    def configs(self) -> Path:
        """Return the folder of the bundle's configs."""
        return ROOT / "bundles" / self.bundle / "configs"


def studies() -> list[str]:
    """Return the names of the studies."""
    return sorted(file.stem for file in DEFINITIONS.glob("*.json"))


def read_study(name: str) -> Study:
    """Return a study by its name in ``studies/definitions``, or from the path of a JSON file.

    Raises:
        UsageError: the study is unknown.
        InputError: the file is not that of a study.
    """
    file = Path(name) if name.endswith(".json") else DEFINITIONS / f"{name}.json"
    if file.parent == DEFINITIONS and not file.is_file():
        raise UsageError(f"unknown study {name}; expected one of {', '.join(studies())}, or a JSON file")
    content = read_json(file)
    try:
        content["scores"] = {name: Score(**score) for name, score in content["scores"].items()}
        content["claims"] = [Claim(**claim) for claim in content["claims"]]
        for key in ("phantoms", "real"):
            if content.get(key) is not None:
                content[key] = Cases(**content[key])
        return Study(name=file.stem, **content)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not a study ({error}); studies/definitions has examples") from error
