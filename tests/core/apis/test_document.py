"""Documents: bounded copies, read once."""

from __future__ import annotations

import pytest
from tests.core.apis import samples
from tests.core.apis.reading import BY_NAME, feed_all, read_document

from clew.core.apis.document import MAX_DOCUMENT_BYTES


def test_any_piece_leaves_the_span_to_the_framing() -> None:
    """A document has no closing span of its own, and no first token."""
    tap = BY_NAME["chat"].unary_tap()

    assert [tap.feed(b"{"), tap.feed(b"}")] == [-1, -1]
    assert not tap.has_output


@pytest.mark.parametrize("api", sorted(BY_NAME))
def test_a_cut_document_is_not_free(api: str) -> None:
    """Its bytes ground the estimate; usage is unknown."""
    reading = read_document(api, b'{"id":"x","choices":[{"message":{"content":"Hel')

    assert (reading.usage, reading.is_complete) == (None, False)
    assert reading.output_chars > 0


def test_another_kind_of_document_generated_nothing() -> None:
    """A proxy's error page is no output."""
    assert read_document("chat", b"<html>502</html>").output_chars == 0


def test_a_document_beyond_the_bound_is_flagged() -> None:
    """Its copy is not kept, its size is."""
    piece = b" " * (MAX_DOCUMENT_BYTES // 4)

    reading, _ = feed_all(BY_NAME["chat"].unary_tap(), [piece] * 5)

    assert (reading.flags, reading.usage) == (("tap_too_large",), None)
    assert reading.output_chars == 5 * len(piece)


def test_pieces_are_joined() -> None:
    """A document is read as a whole, however it came."""
    data = samples.GEMINI_ARRAY
    pieces = [data[at : at + 10] for at in range(0, len(data), 10)]

    assert feed_all(BY_NAME["gemini"].unary_tap(), pieces)[0] == read_document("gemini", data)
