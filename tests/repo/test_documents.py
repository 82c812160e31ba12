"""Links resolve, the changelog knows the version, every decision is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import clew

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("conformance/*.md")])


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def _anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as hosting sites make them."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def _links(document: Path) -> list[str]:
    text = _without_code(document.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    targets += re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_resolves(document: Path) -> None:
    """A link names a file that is there, and a heading that is in it."""
    for link in _links(document):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", ["docs/trust.md", "CONTRIBUTING.md"])
def test_every_path_that_is_named_is_there(name: str) -> None:
    """Who is told that a test keeps a promise finds it where the text says."""
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:src|tests|tools|docs|conformance|bench)/[\w./-]+)", text)

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_changelog_has_this_version() -> None:
    """Nobody runs a version whose changes are nowhere."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(rf"^## \[{re.escape(clew.__version__)}\]", changelog, re.MULTILINE)
    assert re.search(r"^## \[Unreleased\]", changelog, re.MULTILINE)


def test_the_package_states_one_version() -> None:
    """`pyproject.toml` and the package agree."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert f'version = "{clew.__version__}"' in project


def test_every_decision_is_listed_and_numbered_once() -> None:
    """The list of decisions is complete."""
    folder = ROOT / "docs" / "adr"
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    listed = re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text())

    assert pages == sorted(listed)
    assert len({name[:4] for name in pages}) == len(pages)


def test_every_document_is_in_the_index() -> None:
    """Who looks for a document finds it from one page."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [
        path.name
        for path in (ROOT / "docs").glob("*.md")
        if path.name != "index.md" and f"({path.name})" not in index
    ]

    assert missing == []


def test_every_word_of_the_trade_is_in_the_glossary() -> None:
    """One word per thing, explained in one place."""
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = (
        "session alias principal claim binding attempt record family root thread kind journal "
        "incarnation keeper projector barrier"
    )

    assert [word for word in words.split() if f"**{word}**" not in glossary] == []
    assert "**closing span**" in glossary


def test_the_twelve_promises_are_each_accounted_for() -> None:
    """What is not kept yet is said, not left out."""
    trust = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| (P\d+) \|", trust, re.MULTILINE) == [f"P{n}" for n in range(1, 13)]
