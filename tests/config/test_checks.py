"""Which combinations are refused, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from clew.config.checks import NOT_YET
from clew.config.load import ConfigError, load

UPSTREAM = '[[upstream]]\nname = "a"\nurl = "http://127.0.0.1:1"\n'
ENGINE = '[[upstream]]\nname = "e"\nkind = "engine"\n'
WORKERS = 'workers = ["http://127.0.0.1:1"]\n'
PHASES = 'prefill = ["http://127.0.0.1:3", "http://127.0.0.1:4"]\ndecode = ["http://127.0.0.1:5"]\n'


def faults_of(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> str:
    """The lines a file is answered with, as one text."""
    path = tmp_path / "clew.toml"
    path.write_text(text)
    try:
        load(path, environ or {}, {})
    except ConfigError as error:
        return str(error)
    return ""


REFUSED = [
    ('[server]\nlisten = "0.0.0.0:2539"\n', "server.listen: 0.0.0.0:2539 is reachable"),
    ('[server]\nlisten = "[::]:2539"\n', "server.listen: [::]:2539 is reachable"),
    ('[server]\nlisten = "[::1]:"\n', "server.listen: must be HOST:PORT"),
    ('[admin]\nlisten = "127.0.0.1:2539"\n', "admin.listen: 127.0.0.1:2539 is also"),
    ("[server]\nworkers = 0\n", "server.workers: must be at least 1"),
    ("[server]\nworkers = 100000\n", "server.workers: must be at most 256"),
    ('[sessions]\nretention = "0s"\n', "sessions.retention: must be more than zero"),
    (
        f'[server]\nworkers = 2\n{UPSTREAM}[upstream.affinity]\nttl = "1h"\n',
        'claims.store "memory" needs server.workers = 1',
    ),
    (f'{UPSTREAM}[upstream.affinity]\nttl = "400d"\n', 'from "1s" to "365d"'),
    (f'{UPSTREAM}[upstream.affinity]\nttl = "10ms"\n', 'from "1s" to "365d"'),
    (UPSTREAM + UPSTREAM, 'upstream[1].name: "a" is already an upstream'),
    (UPSTREAM.replace('"a"', '"a/b"'), "/u/NAME/"),
    (UPSTREAM.replace('"a"', '".."'), "/u/NAME/"),
    (UPSTREAM.replace("http://", "http://u:secret@"), "must not carry credentials"),
    ('[[upstream]]\nname = "a"\n', "upstream[0].url: is missing"),
    (ENGINE, "an engine may have workers"),
    (f"{UPSTREAM}{WORKERS}", 'belongs to kind = "engine"'),
    (f'{ENGINE}{WORKERS}prefill = ["http://127.0.0.1:2"]\n', "excludes prefill and decode"),
    (f'{ENGINE}prefill = ["http://127.0.0.1:2"]\n', "belong together"),
    (f'{ENGINE}url = "http://127.0.0.1:2"\n{PHASES}', "excludes prefill and decode"),
    (f"{ENGINE}{PHASES}bootstrap_ports = [8998]\n", "hand_over"),
    (f'{ENGINE}{PHASES}hand_over = "sglang"\nbootstrap_ports = [1, 2, 3]\n', "one for each"),
    (f'{ENGINE}{PHASES}hand_over = "sglang"\nbootstrap_ports = [70000]\n', "must be ports"),
    (f'{ENGINE}{PHASES}hand_over = "dynamo"\n', "hand_over"),
    (f"{ENGINE}workers = ['http://h?x']\n", "upstream[0].workers[0]: must not carry a query"),
    (f"{ENGINE}workers = ['http://h', 'http://h']\n", "names the same url twice"),
    (f'{UPSTREAM}api_key_env = "sk-canary"\n', "must be the name of an environment variable"),
    (f'{UPSTREAM}api_key_env = "UNSET_VARIABLE"\n', "names a variable that is not set"),
    (f'{UPSTREAM}api_key_file = "/nonexistent/key"\n', "names no file"),
    (f"{UPSTREAM}paths = []\n", "must name at least one pattern"),
    (f'{UPSTREAM}paths = ["v1/*"]\n', 'must begin with "/" or "*"'),
    (f'{UPSTREAM}models = [""]\n', "upstream[0].models[0]: must be a pattern"),
    (f'{UPSTREAM}identity_out = "no such"\n', "must be a header name"),
    (f'{UPSTREAM}identity_out = "Transfer_Encoding"\n', "frames, routes or authenticates"),
    (f'{UPSTREAM}identity_out = "authorization"\n', "frames, routes or authenticates"),
    ('[[sessions.client]]\nname = "t"\nsession = "cookie"\n', "sessions.client[0].session"),
    ('[[sessions.client]]\nname = "T!"\nsession = "x-t"\n', "sessions.client[0].name"),
    ('[admin]\ntoken_file = "/nonexistent/token"\n', "admin.token_file: names no file"),
    ('[auth]\nsecret_env = "a b"\n', "auth.secret_env: must be the name"),
    (
        '[auth]\nmode = "credential"\n[claims]\nstore = "etcd:http://127.0.0.1:1"\n',
        "auth.secret_env: CLEW_SECRET is not set",
    ),
    (
        f'[auth]\nmode = "credential"\n{UPSTREAM}api_key_env = "KEY"\n',
        "upstream[0].api_key_env: with auth.mode",
    ),
    ('[claims]\nstore = "redis"\n', "claims.store: must be memory"),
    ('[store]\nurl = "mysql://u:secret@h"\n', "store.url: must be empty"),
    (f'{UPSTREAM}discovery = "dns"\n', "upstream[0].discovery: must be static"),
    (f'{ENGINE}discovery = "kubernetes:default/Svc"\n', "upstream[0].discovery: must be static"),
    (f'{ENGINE}discovery = "kubernetes:default/svc"\n', "KUBERNETES_SERVICE_HOST is not set"),
    (f'{ENGINE}discovery = "etcd:/clew/workers"\n', "needs etcd's address"),
    (f'{ENGINE}discovery = "etcd:http://127.0.0.1:2379"\n', "needs a prefix"),
    (f'{ENGINE}{WORKERS}discovery = "file:/x"\n', "discovery: excludes workers"),
    (f'{UPSTREAM}discovery = "file:/x"\n', 'discovery: belongs to kind = "engine"'),
    (f'{ENGINE}{WORKERS}[upstream.health]\npath = "health"\n', "health.path: must be a path"),
    (f"{ENGINE}{WORKERS}[upstream.health]\nrise = 0\n", "health.rise: must be at least 1"),
    ('[trace]\nsinks = ["kafka"]\n', "trace.sinks[0]: must be clew"),
    ('[trace]\nsinks = ["clew", "clew"]\n', "names the same sink twice"),
    ('[[limit]]\nscope = "session"\n', "limits nothing"),
    ('[[limit]]\nscope = "session"\nrequests = "many"\n', "limit[0].requests: must be a rate"),
    ('[[budget]]\nscope = "tree"\nusd = 0\n', "must be more than zero"),
    (
        '[[budget]]\nscope = "tree"\nusd = 5.0\n[journal]\non_failure = "serve"\n',
        'journal.on_failure: "serve" lets calls through uncounted',
    ),
    ('[[limit]]\nscope = "team"\nrequests = "1/s"\n', '"team" covers nobody with auth.mode "none"'),
    ('[[budget]]\nscope = "project"\nusd = 1\n', '"project" covers nobody with auth.mode "none"'),
    (
        '[[budget]]\nscope = "tree"\nusd = 1\n[[budget]]\nscope = "tree"\nusd = 2\n',
        "budget: names the same scope, window and action twice",
    ),
    ('[sessions]\nafter_close = "ignore"\n', "sessions.after_close: must be one of"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_an_impossible_configuration_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """The fault names the key and what to do, and repeats no secret."""
    found = faults_of(text, tmp_path)

    assert said in found
    assert "secret@" not in found
    assert "canary" not in found


LATER = [
    '[store]\nmax_bytes = "1GiB"\n',
    '[journal]\non_failure = "serve"\n',
    '[capture]\ncontent = "shape"\n',
    '[trace]\nsinks = ["clew", "stderr"]\n',
]


@pytest.mark.parametrize(("row", "text"), list(zip(NOT_YET, LATER, strict=True)))
def test_what_this_version_lacks_is_refused_by_name(
    row: tuple[str, object, str], text: str, tmp_path: Path
) -> None:
    """A setting that would do nothing is no setting."""
    key, _, feature = row

    assert f"{key}: {feature}: not available in this version" in faults_of(text, tmp_path)


ACCEPTED = [
    '[sessions]\nresume = "off"\nafter_close = "allow"\n',
    f'{UPSTREAM}identity_out = "x-my-session"\n',
    f'{UPSTREAM}identity_out = "vllm-router"\n',
    f"{ENGINE}{WORKERS}",
    f"{ENGINE}{PHASES}",
    f'{ENGINE}{PHASES}hand_over = "sglang"\nbootstrap_ports = [8998, 8999]\n',
    f'{ENGINE}discovery = "file:workers.json"\n',
    f'{ENGINE}discovery = "etcd:http://127.0.0.1:2379/clew/workers"\n',
    f'{ENGINE}{WORKERS}[upstream.health]\npath = ""\nfall = 1\n',
    f'{UPSTREAM}models = ["claude-opus-4[1m]", "my-*"]\n',
    '[admin]\nlisten = "0.0.0.0:2540"\n',
    '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n',
    '[server]\nlisten = "localhost:1"\nworkers = 4\n',
    '[[limit]]\nscope = "session"\nrequests = "60/m"\ntokens = "1M/h"\n',
    '[auth]\nmode = "keys"\n[[budget]]\nscope = "team"\nusd = 1\nwindow = "month"\n',
    (
        '[[budget]]\nscope = "tree"\nusd = 5.0\n'
        '[[budget]]\nscope = "tree"\nusd = 4.0\naction = "warn"\n'
    ),
    '[store]\nurl = "sqlite:////var/lib/clew/clew.db"\n',
    '[store]\nurl = "postgresql://clew:pw@db.example/clew?sslmode=verify-full"\n',
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_possible_configuration_is_accepted(text: str, tmp_path: Path) -> None:
    """The twin of each refusal passes."""
    assert faults_of(text, tmp_path) == ""


def test_a_key_that_is_set_is_accepted(tmp_path: Path) -> None:
    """The named variable needs a value, not a known one."""
    text = f'{UPSTREAM}api_key_env = "FLEET_KEY"\n'

    assert faults_of(text, tmp_path, {"FLEET_KEY": "x"}) == ""


def test_a_rule_is_silent_about_what_was_faulty_itself(tmp_path: Path) -> None:
    """No second fault follows from a default that took a faulty value's place."""
    found = faults_of('[server]\nlisten = "0.0.0.0:1"\n[auth]\nmode = "kyes"\n', tmp_path)

    assert found.count("\n") == 0
    assert "auth.mode" in found
