"""Asking for usage: one member goes into the bytes, or none does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.core.apis.asking import MEMBER, Asked, ask_for_usage

ASKED = [
    (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
    (b' {\n "stream" : true }', b' {"stream_options":{"include_usage":true},\n "stream" : true }'),
    (
        b'{"stream":true,"stream_options":null}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
    ),
    (
        b'{"stream":true,"stream_options":{ }}',
        b'{"stream":true,"stream_options":{"include_usage":true }}',
    ),
    (
        b'{"stream_options" : {"x":{"include_usage":1}}, "stream":true}',
        b'{"stream_options" : {"include_usage":true,"x":{"include_usage":1}}, "stream":true}',
    ),
    (
        rb'{"stream_opt\u0069ons":{"a":1},"str\u0065am":true}',
        rb'{"stream_opt\u0069ons":{"include_usage":true,"a":1},"str\u0065am":true}',
    ),
    (
        b'{"tools":[{"stream":false,"stream_options":1}],"a":"stream","stream":true}',
        b"{"
        + MEMBER
        + b',"tools":[{"stream":false,"stream_options":1}],"a":"stream","stream":true}',
    ),
    (
        rb'{"a":"\"stream","b":"say \"stream_options\":","stream":true,"stream_options":null}',
        rb'{"a":"\"stream","b":"say \"stream_options\":","stream":true,' + MEMBER + b"}",
    ),
]
LEFT_ALONE = [
    (b'{"stream":true,"stream_options":{"include_usage":true}}', Asked.NOTHING),
    (rb'{"stream":true,"stream_options":{"include\u005fusage":true}}', Asked.NOTHING),
    (b'{"stream":false}', Asked.NOTHING),
    (b'{"stream":null}', Asked.NOTHING),
    (b'{"messages":[{"stream":true}]}', Asked.NOTHING),
    (b'{"stream":true,"stream_options":{"include_usage":false}}', Asked.NOT_ASKED),
    (b'{"stream":true,"stream_options":[]}', Asked.NOT_ASKED),
    (b'{"stream":true,"stream_options":"include_usage"}', Asked.NOT_ASKED),
    (b'{"stream":1}', Asked.NOT_ASKED),
    (b'{"stream":"true"}', Asked.NOT_ASKED),
    (b'{"stream":false,"stream":true}', Asked.NOT_ASKED),
    (rb'{"stream":false,"\u0073tream":true}', Asked.NOT_ASKED),
    (b'{"stream":true,"stream_options":{},"stream_options":{"a":1}}', Asked.NOT_ASKED),
    (b'{"stream":true} trailing', Asked.NOT_ASKED),
    (b'{"stream":true}{"stream":true}', Asked.NOT_ASKED),
    (b'\xef\xbb\xbf{"stream":true}', Asked.NOT_ASKED),
    (b'{"stream":true,"x":NaN}', Asked.NOT_ASKED),
    (b'{"stream":true,', Asked.NOT_ASKED),
    (b'[{"stream":true}]', Asked.NOT_ASKED),
    (b"\x1f\x8b\x08", Asked.NOT_ASKED),
    (b"", Asked.NOT_ASKED),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, Asked.NOT_ASKED),
]


@pytest.mark.parametrize(("body", "expected"), ASKED)
def test_one_member_is_inserted_and_nothing_else_changes(body: bytes, expected: bytes) -> None:
    """Also beside namesakes further down, in texts, and with escaped keys."""
    assert ask_for_usage(body) == (expected, Asked.ASKED)


@pytest.mark.parametrize(("body", "what"), LEFT_ALONE)
def test_a_body_in_doubt_or_without_need_stays_as_it_is(body: bytes, what: Asked) -> None:
    """What two readers could read differently is not touched."""
    assert ask_for_usage(body) == (body, what)


def test_a_large_body_is_asked_for_in_one_pass() -> None:
    """The size of a conversation is no reason not to ask."""
    text = b'a \\"stream of words\\" ' * 150_000
    body = b'{"messages":[{"content":"' + text + b'"}],"stream":true}'

    changed, what = ask_for_usage(body)

    assert what is Asked.ASKED
    assert changed == b"{" + MEMBER + b"," + body[1:]


def test_a_large_body_full_of_namesakes_is_left_alone() -> None:
    """Telling the key from a hundred thousand others would hold everybody up."""
    body = b'{"a":[' + b'"stream",' * 100_000 + b'1],"stream":true}'

    assert ask_for_usage(body) == (body, Asked.NOT_ASKED)


KEYS = st.sampled_from(["stream", "stream_options", "include_usage", "model", 'a"stream', "\\", ""])
VALUES = st.recursive(
    st.sampled_from([True, False, None, 1, "stream", '"stream":true', "stream_options", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.tuples(KEYS, inner), max_size=3).map(lambda pairs: ("object", pairs))
    ),
    max_leaves=6,
)
BLANKS = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON objects with repeated keys, escapes and blanks, about what is looked for."""

    def text(value: str) -> str:
        plain = json.dumps(value)
        if value and draw(st.booleans()) and value[0].isalpha():
            at = draw(st.integers(0, 1)) if len(value) > 1 and value[1].isalpha() else 0
            escaped = f"\\u{ord(value[at]):04{draw(st.sampled_from('xX'))}}"
            return plain[: 1 + at] + escaped + plain[2 + at :]
        return plain

    def render(value: Any) -> str:
        blank = draw(BLANKS)
        if isinstance(value, tuple):
            members = (
                f"{draw(BLANKS)}{text(key)}{draw(BLANKS)}:{render(inner)}"
                for key, inner in value[1]
            )
            return f"{blank}{{{','.join(members)}{draw(BLANKS)}}}"
        if isinstance(value, list):
            return f"{blank}[{','.join(map(render, value))}{draw(BLANKS)}]"
        if isinstance(value, str):
            return blank + text(value) + draw(BLANKS)
        return blank + json.dumps(value) + draw(BLANKS)

    pairs = draw(st.lists(st.tuples(KEYS, VALUES), max_size=4))
    pairs.insert(draw(st.integers(0, len(pairs))), ("stream", draw(st.sampled_from([True, False]))))
    return render(("object", pairs)).encode()


@given(bodies())
def test_every_reader_sees_the_same_body_with_the_question_in_it(body: bytes) -> None:
    """Whether it takes the first or the last of equal keys: one member more, at the right place."""
    changed, what = ask_for_usage(body)

    before = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    after = json.loads(changed, object_pairs_hook=lambda pairs: pairs)
    if what is not Asked.ASKED:
        assert changed == body
        if what is Asked.NOTHING:
            assert dict(before).get("stream") is not True or _includes(before) is True
        return
    assert [value for key, value in after if key == "stream"] == [True]
    ((options),) = [value for key, value in after if key == "stream_options"]
    assert [value for key, value in options if key == "include_usage"] == [True]
    assert _without_question(after) == [
        pair for pair in before if pair[0] != "stream_options" or pair[1]
    ]


def _includes(pairs: list[tuple[str, Any]]) -> Any:
    options = dict(pairs).get("stream_options")
    return dict(options).get("include_usage") if isinstance(options, list) else None


def _without_question(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    found = []
    for key, value in pairs:
        if key != "stream_options":
            found.append((key, value))
        elif kept := [pair for pair in value if pair[0] != "include_usage"]:
            found.append((key, kept))
    return found
