"""Trees: their shape whatever parents clients named, their sums, their bounds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.store.reads_shapes import Session
from clew.store.reads_tree import MAX_DEPTH, Sums, Tree, assemble, encode_tree, flatten


def session(key: str, parent: str | None = None, billed: str | None = "0.000000001") -> Session:
    """A session with one request."""
    return Session(
        id=key,
        session_id=f"x-{key}",
        principal="local",
        team=None,
        project=None,
        source="canonical",
        client=None,
        state="open",
        parent_id=parent,
        root_id="0",
        depth=0,
        aliases=[],
        forked_from=None,
        resumed_from=[],
        opened_at="",
        last_seen_at="",
        closed_at=None,
        close_reason=None,
        requests=1,
        errors=0,
        input_tokens=10,
        cached_tokens=0,
        cache_write_tokens=0,
        output_tokens=1,
        cost_usd=billed,
        billed_usd=billed,
        imputed_usd=billed and "0.000000000",
        unpriced=0 if billed else 1,
        models=[],
        kinds={},
        worker=None,
    )


def tree_of(items: list[Session]) -> Tree:
    """A tree whose root is ``0``."""
    total = Sums(requests=len(items), billed_nanousd=len(items))
    return assemble("0", items, total, is_cut=False)


def test_branches_are_summed_from_the_leaves() -> None:
    """A node's totals are its own and those of everything below it."""
    tree = tree_of([session("0"), session("1", "0"), session("2", "1"), session("3", "0")])

    assert [(one.session.id, one.depth, one.totals.requests) for one in flatten(tree)] == [
        ("0", 0, 4),
        ("1", 1, 2),
        ("2", 2, 1),
        ("3", 1, 1),
    ]
    assert tree.root.children[0].totals.cost_usd == "0.000000002"


def test_a_branch_without_any_price_costs_null() -> None:
    """An unpriced leaf is not free."""
    tree = tree_of([session("0"), session("1", "0", None)])

    assert tree.root.children[0].totals.cost_usd is None


def test_the_json_is_nested_as_documented() -> None:
    """session, children and totals at every node; count and truncated at the root."""
    found = json.loads(encode_tree(tree_of([session("0"), session("1", "0"), session("2", "0")])))

    assert list(found) == ["session", "children", "totals", "count", "truncated"]
    assert [list(child) for child in found["children"]] == [["session", "children", "totals"]] * 2
    assert (found["count"], found["truncated"]) == (3, False)


def test_a_chain_as_long_as_the_bound_still_reads() -> None:
    """5,000 sessions each naming the one before: cut in depth, said so, readable by any client."""
    chain = [session("0")] + [session(str(n), str(n - 1)) for n in range(1, 5_000)]

    tree = tree_of(chain)
    found = json.loads(encode_tree(tree))

    assert found["truncated"] is True
    assert found["count"] == MAX_DEPTH + 1
    assert found["totals"]["requests"] == 5_000


@given(st.lists(st.integers(-1, 24), min_size=1, max_size=25))
@pytest.mark.filterwarnings("default")
def test_every_session_is_shown_once_whatever_its_parent(parents: list[int]) -> None:
    """Missing parents, own parents and circles lose nobody and end."""
    items = [
        session(str(key), str(parent) if parent >= 0 else None)
        for key, parent in enumerate(parents)
    ]

    shown = [node.session.id for node in flatten(tree_of(items))]

    assert shown[0] == "0"
    assert sorted(shown) == sorted(item.id for item in items)
