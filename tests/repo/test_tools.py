"""The repository's own checks find what they are for, and find nothing here."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import check_sizes, check_words

ROOT = Path(__file__).resolve().parents[2]

# Written in two pieces so that this file does not find itself.
FAULTS = (
    ("# TO" + "DO: later", "unfinished work"),
    ("x = 1  # FIX" + "ME", "unfinished work"),
    ("@pytest.mark.sk" + "ip", "skipped test"),
    ("https://py" + "pi.org/simple", "package registry host"),
    ("--index" + "-url http://mirror", "package registry host"),
    ("open('/ho" + "me/someone/file')", "absolute home path"),
    ("cd /Use" + "rs/someone", "absolute home path"),
    ("-----BEGIN RSA PRIVATE " + "KEY-----", "private key"),
    ("<" * 7 + " HEAD", "conflict marker"),
)


@pytest.mark.parametrize(("text", "rule"), FAULTS)
def test_each_kind_of_forbidden_word_is_found(text: str, rule: str) -> None:
    """A fault is named with its file, line and rule."""
    found = list(check_words.search("src/clew/x.py", "fine\n" + text))

    assert len(found) == 1
    assert found[0].startswith(f"src/clew/x.py:2: {rule}")


def test_quoted_data_may_say_anything() -> None:
    """A capture repeats what an agent sent, and is not ours to clean."""
    assert not list(check_words.search("conformance/captures/a.jsonl", "TO" + "DO /ho" + "me/x"))


@pytest.mark.parametrize(
    ("name", "is_vague"),
    [
        ("src/clew/utils.py", True),
        ("src/clew/core/helpers/x.py", True),
        ("src/clew/wire/pool_manager.py", False),
        ("src/clew/session.py", False),
    ],
)
def test_a_module_says_what_it_is_about(name: str, is_vague: bool) -> None:
    """Names that could hold anything are refused."""
    assert bool(check_words.IN_PATH.pattern.search(name)) is is_vague


def test_no_file_of_the_repository_has_a_forbidden_word() -> None:
    """The whole tree is clean."""
    assert check_words.main() == 0


def test_a_size_over_the_limit_is_a_fault() -> None:
    """What is over must be cut."""
    assert check_sizes.faults({"src/a.py": 900}, {})


@pytest.mark.parametrize("allowed", [{"src/a.py": 950}, {"src/a.py": 900, "src/gone.py": 801}])
def test_the_list_of_exceptions_may_only_shrink(allowed: dict[str, int]) -> None:
    """An entry that is too generous or not needed any more is a fault as well."""
    assert check_sizes.faults({"src/a.py": 900}, allowed)


def test_an_exception_at_its_size_is_accepted() -> None:
    """An entry is kept as long as it is exact."""
    assert not check_sizes.faults({"src/a.py": 900}, {"src/a.py": 900})


def test_a_body_is_counted_without_its_docstring(tmp_path: Path) -> None:
    """Documentation is never what makes a function too long."""
    (tmp_path / "src").mkdir()
    body = "\n".join(["    x = 1"] * 60)
    text = f'def f():\n    """One.\n\n    Two.\n    """\n{body}\n'
    (tmp_path / "src" / "a.py").write_text(text)

    over, bodies = check_sizes.measure(tmp_path)

    assert over == {}
    assert bodies == [60]
