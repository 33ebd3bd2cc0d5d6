"""
A command of `perpetuo`, as somebody would type it, run by this process: a process of its own imports for a second.

    done = perpetuo("breaker", "list", PERPETUO_URL=gateway.url)
    assert (done.exit_code, done.stderr) == (0, "")

Where the process is the point (signals, what it imports, how it ends), tests start one.
"""

import os

from click.testing import CliRunner, Result

from perpetuo.entrypoints.commands.group import main


def perpetuo(*arguments: str, **environ: str) -> Result:
    """With these variables, and none of ours that happen to be set; an exception that nobody caught is raised."""
    ours = (name for name in os.environ if name.startswith(("PERPETUO_", "REDIS_", "DATABASE_")))
    variables: dict[str, str | None] = dict.fromkeys(ours)
    return CliRunner().invoke(main, arguments, env=variables | environ, catch_exceptions=False)
