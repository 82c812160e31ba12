"""The store's schema: built from nothing, equal to the tables in code, refused when newer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from clew.store import migrations
from clew.store.engine import open_for_writing, open_sqlite_for_writing
from clew.store.migrate import StoreTooNewError, migrate
from clew.store.rows import AliasRow, AttemptRow
from clew.store.schema import aliases, attempts, landing, metadata


def test_an_empty_store_gets_every_table(engine: sa.Engine) -> None:
    """The first start needs nothing else."""
    assert migrate(engine)

    assert set(metadata.tables) <= set(sa.inspect(engine).get_table_names())


def test_migrating_twice_changes_nothing(engine: sa.Engine) -> None:
    """Every later start finds its schema."""
    migrate(engine)

    assert not migrate(engine)


def test_migrations_lead_to_the_tables_in_code(engine: sa.Engine) -> None:
    """A column added to the code without a migration is found here."""
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, metadata)

    assert found == []


def test_a_newer_store_is_refused_untouched(engine: sa.Engine) -> None:
    """One line says which schema it has and what to do."""
    migrate(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(StoreTooNewError, match=r"^the store has schema 9999, [^\n]+$"):
        migrate(engine)


def test_keepers_that_start_at_once_migrate_one_after_the_other(engine: sa.Engine) -> None:
    """Exactly one of them finds something to do."""
    engines = [engine, *others_of(engine, 3)]
    with ThreadPoolExecutor(len(engines)) as threads:
        done = list(threads.map(migrate, engines))
    for other in engines:
        other.dispose()

    assert done.count(True) == 1


def others_of(engine: sa.Engine, count: int) -> list[sa.Engine]:
    """The same store as other processes open it; SQLite's has one writer."""
    if engine.dialect.name == "sqlite":
        return []
    url = engine.url.render_as_string(hide_password=False)
    return [open_for_writing(url, Path("/nowhere")) for _ in range(count)]


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600."""
    migrate(open_sqlite_for_writing(tmp_path / "clew.db"))

    assert (tmp_path / "clew.db").stat().st_mode & 0o777 == 0o600


def test_rows_have_the_tables_columns() -> None:
    """A row read by position is the row that was meant."""
    assert set(AttemptRow._fields) == {column.name for column in attempts.c}
    assert set(AliasRow._fields) == {column.name for column in aliases.c}


def test_attempts_of_an_older_store_have_landed_in_their_order(engine: sa.Engine) -> None:
    """Who follows what lands begins behind them."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        columns = "request_id, attempt, principal, resolution, kind, transport, method, path, "
        columns += "upstream, status, received_at_ns, estimated, billing, request_bytes, "
        columns += "response_bytes, client_disconnected, final, state, flags"
        for name, at in (("late", 2), ("early", 1)):
            values = f"'{name}', 1, 'p', 'new', 'turn', 'http', 'POST', '/', 'u', 200, {at}, "
            values += "false, 'api', 0, 0, false, false, 'settled', '[]'"
            connection.exec_driver_sql(f"INSERT INTO attempts ({columns}) VALUES ({values})")
    migrate(engine)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(attempts.c.request_id, attempts.c.landed)).all()
        last = connection.scalar(sa.select(landing.c.last))

    assert dict(map(tuple, rows)) == {"early": 1, "late": 2}
    assert last == 2
