"""Which variables does a gateway read?"""

from collections.abc import Iterator

from perpetuo.adapters.environment import VARIABLES
from scripts.reference.markdown import GENERATED, table

INTRODUCTION = """\
Read once, at the start; an empty one counts as not set. Any of them, and any `${NAME}` in the configuration, can come
from a file instead: `NAME_FILE` names it. Both at once are an error. Every problem is told at once, and a secret is
never repeated in one."""


def lines() -> Iterator[str]:
    yield from ["# Environment variables", "", GENERATED, ""]
    yield from [INTRODUCTION, ""]
    rows = [(f"`{v.name}`", v.default, v.meaning + (" *Secret.*" if v.secret else "")) for v in VARIABLES]
    yield from table(("Variable", "Left out", "Meaning"), rows)
