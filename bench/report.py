"""Prints a run as two tables: processor time first, because that is what a run can compare."""

from __future__ import annotations

from typing import Any

from bench.metering import metering_line

TITLES = {
    "unary": "One request of a known session, 2 KB JSON, answer 2 KB",
    "paced": "The same request, at a pace that leaves the machine time",
    "new": "One request that opens a session",
    "stream": "One streamed chunk, 200 bytes",
}
_HEAD = (
    f"{'proxy':<14}{'worker µs':>10}{'× nginx':>9}{'group µs':>10}{'per s':>9}"
    f"{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}"
)


def _line(row: dict[str, Any]) -> str:
    is_stream = row["scenario"] == "stream"
    p50, p99 = ("delay_p50_ms", "delay_p99_ms") if is_stream else ("p50_ms", "p99_ms")
    # What answered wrongly did other work than the rest: its cost compares with nothing.
    is_comparable = row["worker_us"] and not row["errors"]
    ratio = f"{row['ratio_to_nginx']:.1f}" if is_comparable and row["ratio_to_nginx"] else "–"
    worker = f"{row['worker_us']:.1f}" if is_comparable else "–"
    group = f"{row['group_us']:.1f}" if is_comparable else "–"
    return (
        f"{row['proxy']:<14}{worker:>10}{ratio:>9}{group:>10}{row['units_per_s']:>9.0f}"
        f"{row[p50]:>9.2f}{row[p99]:>9.2f}{row['errors']:>8}"
    )


def print_tables(
    rows: list[dict[str, Any]], surroundings: dict[str, Any], absent: dict[str, str]
) -> None:
    """One table a scenario, then what a reader must know to trust it."""
    for scenario, title in TITLES.items():
        found = [row for row in rows if row["scenario"] == scenario]
        if not found:
            continue
        print(f"\n{title}\n{_HEAD}")
        for row in sorted(found, key=lambda row: float(row["worker_us"])):
            print(_line(row))
    if said := metering_line(rows):
        print(f"\n{said}")
    print(
        "\nworker: the proxying process (nginx's worker, Clew's gateway) and what the kernel's own"
        "\nworkers did meanwhile, syncs above all; group: all its processes. Medians of "
        f"{rows[0]['rounds'] if rows else 0} rounds;"
        "\nstreamed p50/p99 are a chunk's way from the upstream's write to the client's read."
    )
    versions = ", ".join(f"{name} {version}" for name, version in surroundings["versions"].items())
    print(
        f"{surroundings['cores']} cores, load before {surroundings['load_before']:.1f}, "
        f"Python {surroundings['python']}, data on {surroundings['file_system']}; {versions}"
    )
    for name, reason in absent.items():
        print(f"not measured: {name} ({reason})")
