"""Which file knows which form of agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from clew.agents import claude, codex, opencode, pi, plain
from clew.agents.plan import Form as Reading
from clew.agents.table import Form

FORMS: Final[Mapping[Form, Reading]] = {
    Form.ENVIRONMENT: plain.FORM,
    Form.CLAUDE: claude.FORM,
    Form.CODEX: codex.FORM,
    Form.OPENCODE: opencode.FORM,
    Form.PI: pi.FORM,
}
