"""Write docs/images/<method>.svg for every network."""

from pathlib import Path

from . import NETWORKS

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def main() -> None:
    """Write the diagrams and print their paths."""
    for method, draw in NETWORKS.items():
        path = IMAGES / f"{method}.svg"
        path.write_text(draw().svg(), encoding="utf-8")
        print(path.relative_to(IMAGES.parents[1]))


if __name__ == "__main__":
    main()
