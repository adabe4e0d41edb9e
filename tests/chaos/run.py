"""Kills parts of a deployed system under load. usage: run.py [--only NAME,...] [--strikes N] [--minutes M]
[--callers N] [--seed N] [--out FILE]

Prints a table and writes it as JSON. Ends with 1 when a call was lost, a program was started twice, something
did not come back, or an invariant was broken.
"""

import argparse
import json
import os
import secrets
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from chaos.account import Figures, table
from chaos.rounds import Chaos
from chaos.victims import chosen
from e2e.deployment import Deployment, NotDeployedError
from e2e.frontend import FrontEnd
from e2e.kube import Kube
from e2e.watching import InvariantWatcher

ROOT = Path(__file__).resolve().parents[2]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Kill parts of the deployed system under load.")
    parser.add_argument("--only", default="", help="comma separated names of victims; all without it")
    parser.add_argument("--strikes", type=int, default=20, help="of each victim")
    parser.add_argument("--minutes", type=float, default=12.0, help="longest time for one victim")
    parser.add_argument("--callers", type=int, default=4, help="calls at the same time")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of what is random")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "chaos.json", help="where the JSON goes")
    return parser.parse_args()


def main() -> int:
    """Returns the exit status."""
    options = arguments()
    try:
        deployment = Deployment.find(os.environ, ROOT / "build" / "env")
    except NotDeployedError as missing:
        print(f"nothing to kill: {missing}", file=sys.stderr)
        return 2
    kube = Kube(deployment)
    chaos = Chaos(kube, FrontEnd(deployment.endpoint, deployment.api_key), options.callers, options.seed)
    try:
        victims = chosen(chaos.victims, [name for name in options.only.split(",") if name])
    except ValueError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    watcher = InvariantWatcher(kube)
    watcher.start()
    lines: list[Figures] = []
    print(f"seed {options.seed}", file=sys.stderr)
    for line in chaos.run(victims, options.strikes, options.minutes * 60):
        lines.append(line)
        print(table([line]), file=sys.stderr, flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"seed": options.seed, "victims": [asdict(each) for each in lines]}, indent=1) + "\n"
        )
    broken = watcher.finish()
    print(table(lines))
    print("\n".join(fault for line in lines for fault in line.faults))
    print("\n".join(broken) or "no invariant was broken")
    print(f"written to {options.out}")
    return 1 if broken or any(line.faults for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
