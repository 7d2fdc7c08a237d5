"""Run the steps of containers/Containerfile where no container can be built: in a folder that holds a Debian system.

    debootstrap --variant=minbase bookworm ROOTFS      (as root)
    python tools/rehearse_container.py ROOTFS [--argument CUPY=cupy-cuda13x] [--list]

COPY copies into ROOTFS, RUN runs in it by chroot (as root, with the network of this machine); the base image, layers
and the container's isolation are what it does not rehearse.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

FILE = Path("containers/Containerfile")
NETWORK = ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "PIP_CERT")
"""Variables of this machine that a step keeps; the certificates have to be at the same place in ROOTFS."""


def instructions(path: Path = FILE) -> list[tuple[str, str]]:
    """The instructions of a Containerfile in order, as (name, text); continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def rehearse(rootfs: Path, given: dict[str, str]) -> None:
    """Take every step in `rootfs`; raises CalledProcessError at the first that fails."""
    environment = {name: os.environ[name] for name in NETWORK if name in os.environ}
    environment |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    shell, folder = ["/bin/sh", "-c"], "/"
    for name, text in instructions():
        started = time.monotonic()
        print(f"{name} {text}", flush=True)
        if name == "ARG":
            key, _, default = text.partition("=")
            environment[key] = given.get(key, default.strip('"'))
        elif name == "ENV":
            for word in shlex.split(text):
                key, _, value = word.partition("=")
                environment[key] = re.sub(r"\$(\w+)", lambda match: environment.get(match[1], ""), value)
        elif name == "SHELL":
            shell = [word.strip('" ') for word in text.strip("[]").split(",")]
        elif name == "WORKDIR":
            folder = text
            (rootfs / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = text.split()
            for source in map(Path, sources):
                place = rootfs / folder.lstrip("/") / target / ("" if source.is_dir() else source.name)
                if source.is_dir():
                    shutil.copytree(source, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, place)
        elif name == "RUN":
            command = ["chroot", str(rootfs), *shell, f"cd {shlex.quote(folder)} && {text}"]
            subprocess.run(command, env=environment, check=True)
            print(f"  ({time.monotonic() - started:.0f} s)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rootfs", type=Path, help="folder with a Debian system")
    parser.add_argument("--argument", action="append", default=[], help="build argument, NAME=VALUE")
    parser.add_argument("--list", action="store_true", help="only print the instructions")
    options = parser.parse_args()
    if options.list:
        for name, text in instructions():
            print(name, text)
        return
    if os.geteuid() != 0 or not (options.rootfs / "usr/bin/dpkg").exists():
        sys.exit("rehearse_container: needs root, and a Debian system in ROOTFS (debootstrap makes one)")
    rehearse(options.rootfs, dict(pair.partition("=")[::2] for pair in options.argument))


if __name__ == "__main__":
    main()
