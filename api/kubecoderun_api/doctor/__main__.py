"""python -m kubecoderun_api.doctor: will this LibreChat work with this front end?

Exit status: 0 when nothing fails, 1 when something does, 2 for wrong arguments.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from dotenv import dotenv_values

from kubecoderun_api.doctor import checks, environment, probe, releases, report
from kubecoderun_api.doctor.releases import Release


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, print, and return the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        release = _release(given)
        env = _read(given.env)
    except (releases.UnknownReleaseError, OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    if given.url:
        env[environment.BASEURL] = given.url
    findings = environment.check(env, release)
    base = environment.base(env)
    if base is not None and not given.offline:
        seen = probe.look(base, env, slow=not given.quick)
        key = bool(env.get(environment.KEY, "").strip())
        findings += checks.check(seen, release, key=key, tokens=environment.uses_tokens(env))
    sys.stdout.write(report.as_json(findings) if given.json else report.text(findings))
    return 1 if report.failed(findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kubecoderun_api.doctor",
        description="Checks LibreChat's settings against the front end that it is to use.",
    )
    parser.add_argument("--env", metavar="FILE", required=True, help="LibreChat's .env; - for standard input")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--librechat", metavar="VERSION", help="version of LibreChat, such as 0.8.4")
    which.add_argument("--agents", metavar="VERSION", help="version of @librechat/agents, which says more")
    parser.add_argument("--url", help="address to use from here, instead of the one in the file")
    parser.add_argument("--quick", action="store_true", help="leave out the run of six seconds")
    parser.add_argument("--offline", action="store_true", help="look at the file only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _release(given: argparse.Namespace) -> Release | None:
    if given.librechat:
        return releases.of_librechat(given.librechat)
    return releases.of_agents(given.agents) if given.agents else None


def _read(source: str) -> dict[str, str]:
    """The settings of a file; names without a value are left out."""
    content = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")
    # LibreChat's reader puts no variables into values
    parsed = dotenv_values(stream=io.StringIO(content), interpolate=False)
    return {name: value for name, value in parsed.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
