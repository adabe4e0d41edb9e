"""Installs the real client package once and runs small Node programs with it."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INSTALL_SECONDS, RUN_SECONDS = 900, 180


class ClientMissingError(Exception):
    """Node, npm or the package cannot be had; the text says which and why."""


def installed(build: Path) -> Path:
    """Folder with the client's node_modules, installed when it is not there at these exact versions yet.

    Raises ClientMissingError without Node or npm, and when the installation fails.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise ClientMissingError(f"{program} is not installed")
    wanted = (HERE / "package.json").read_bytes()
    version = json.loads(wanted)["dependencies"]["@librechat/agents"]
    folder, mark = build / f"client-{version}", hashlib.sha256(wanted).hexdigest()
    stamp = folder / ".installed"
    if stamp.is_file() and stamp.read_text() == mark:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_bytes(wanted)
    # The package's install scripts send telemetry, and nothing here needs them.
    quiet = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    command = ["npm", "install", *quiet]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if done.returncode != 0:
        raise ClientMissingError(f"npm install failed: {done.stderr.strip()[-500:]}")
    stamp.write_text(mark)
    return folder


def run_node(script: str, folder: Path, argument: str, base_url: str, key: str) -> Any:
    """The JSON a Node program of this folder prints as its last line. Fails with what it wrote to stderr."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in {"PROXY", "HTTP_PROXY", "HTTPS_PROXY"}
    }
    environment |= {"LIBRECHAT_CODE_BASEURL": base_url, "KCR_API_KEY": key}
    done = subprocess.run(
        ["node", str(HERE / script), str(folder), argument],
        capture_output=True, text=True, timeout=RUN_SECONDS, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
