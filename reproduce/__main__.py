"""Write docs/reference/reproduce.md and the tables of the model cards from every bundle's docs/results.yaml."""

from . import BUNDLES, ROOT, card, page, read_results


def main() -> None:
    """Write the page and the cards, and print the paths."""
    results = [read_results(bundle) for bundle in BUNDLES]
    pages = {ROOT / "docs" / "reference" / "reproduce.md": page(results)}
    for of_bundle in results:
        path = of_bundle.bundle / "docs" / "README.md"
        pages[path] = card(path.read_text(encoding="utf-8"), of_bundle)
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
