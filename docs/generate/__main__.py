"""`python -m docs.generate`: write every generated document to its place."""

from __future__ import annotations

from docs.generate.pages import PAGES, ROOT


def main() -> None:
    for name, render in PAGES.items():
        path = ROOT / name
        path.write_text(render())
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
