"""What MkDocs does not do by itself: pages from scripts, and files of the repository that pages link to.

- A tutorial (`examples/tutorials/*.py`, cells marked `# %%`) becomes the page `tutorials/NAME.md`.
- README's neighbours (`RESULTS.md`, `DESIGN.md`, ...) become pages below `project/`.
- A link to any other file of the repository, as `../results/mpe_cpu/tables.md`, gets a copy of it in the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PROJECT = ("RESULTS.md", "DESIGN.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""The target of a link in Markdown, where it is a relative path."""


def tutorial(source: str) -> str:
    """A script with cells as Markdown: comments of its Markdown cells, and its code in blocks."""
    blocks = []
    for cell in re.split(r"(?m)^# %%", source)[1:]:
        head, _, body = cell.partition("\n")
        if "markdown" in head:
            blocks.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()))
        else:
            blocks.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(blocks) + "\n"


def _place(file: Path) -> str:
    """Where a file of the repository stands in the site."""
    inside = file.relative_to(ROOT)
    if inside.parts[0] == "docs":
        return Path(*inside.parts[1:]).as_posix()
    if inside.parts[:2] == ("examples", "tutorials"):
        return f"tutorials/{inside.stem}.md"
    return f"project/{inside.as_posix()}"


def _targets(text: str, folder: Path) -> list[Path]:
    """Files of the repository outside docs/ that a page links to, and where they lie."""
    found = [(folder / match[1]).resolve() for match in LINK.finditer(text)]
    docs = ROOT / "docs"
    return [path for path in found if path.is_file() and path.is_relative_to(ROOT) and not path.is_relative_to(docs)]


def relink(text: str, folder: Path, page: str) -> str:
    """A page's links, so that they hold from its place in the site."""

    def link(match: re.Match[str]) -> str:
        path = (folder / match[1]).resolve()
        if not path.exists() or not path.is_relative_to(ROOT) or path.is_dir():
            return match[0]
        return posixpath.relpath(_place(path), posixpath.dirname(page) or ".") + (match[2] or "")

    return LINK.sub(link, text)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and what they and all others link to."""
    pages = [ROOT / name for name in PROJECT] + sorted((ROOT / "examples" / "tutorials").glob("*.py"))
    for path in pages:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            files.append(File.generated(config, _place(path), content=tutorial(text)))
        else:
            files.append(File.generated(config, _place(path), content=relink(text, path.parent, _place(path))))
    written = [(path.read_text(encoding="utf-8"), path.parent) for path in (ROOT / "docs").rglob("*.md")]
    written += [(path.read_text(encoding="utf-8"), path.parent) for path in pages if path.suffix == ".md"]
    for path in sorted({target for text, folder in written for target in _targets(text, folder)} - set(pages)):
        files.append(File.generated(config, _place(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of docs/ that lead out of it."""
    source = ROOT / "docs" / page.file.src_uri
    return relink(markdown, source.parent, page.file.src_uri) if source.is_file() else markdown
