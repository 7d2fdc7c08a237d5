"""A small `conda` on py-rattler: the calls that Snakemake 9 makes for --use-conda, and `conda list --explicit`.

Solver, hash checks and installation are rattler's; only the command line is ours. Tested with py-rattler 0.28. pip
sections of environment files are refused: nothing is downloaded here.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

import rattler
import yaml

VERSION = "24.11.0"
"""The conda version that Snakemake sees; it asks for 24.7.1 or newer."""


async def create(channels: list[str], specs: list[str], prefix: Path) -> None:
    """Solve `specs` against `channels` and install what was found."""
    records = await rattler.solve(
        [rattler.Channel(channel) for channel in channels],
        specs,
        platforms=[str(rattler.Subdir.current()), "noarch"],
        virtual_packages=rattler.VirtualPackage.detect(rattler.VirtualPackageOverrides.from_env()),
    )
    await rattler.install(records, target_prefix=prefix, show_progress=False)


async def create_explicit(lines: list[str], prefix: Path) -> None:
    """Install the packages of `URL#md5` lines; the channel's hash has to be the pinned one."""
    records = []
    for line in lines:
        url, _, md5 = line.partition("#")
        channel, subdir, name = url.rsplit("/", 2)
        spec = rattler.MatchSpec(name.rsplit("-", 2)[0])
        listed = await rattler.Gateway().query(
            [rattler.Channel(channel)], [rattler.Subdir(subdir)], [spec], recursive=False
        )
        found = [record for records_ in listed for record in records_ if record.file_name == name]
        if not found:
            sys.exit(f"conda: {url}: not in the channel")
        if found[0].md5.hex() != md5:
            sys.exit(f"conda: {url}: md5 {found[0].md5.hex()} is not the pinned {md5}")
        records.append(found[0])
    await rattler.install(records, target_prefix=prefix, show_progress=False)


def explicit(prefix: Path) -> list[str]:
    """The packages of an environment as lines of a pin file."""
    records = [json.loads(path.read_text()) for path in sorted((prefix / "conda-meta").glob("*.json"))]
    return ["@EXPLICIT", *(f"{record['url']}#{record['md5']}" for record in records)]


def main(arguments: list[str]) -> None:
    words = [word for word in arguments if not word.startswith("-")]
    parser = argparse.ArgumentParser(prog="conda", exit_on_error=False)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--prefix", "-p", type=Path)
    options, _ = parser.parse_known_args(arguments)
    if arguments == ["--version"]:
        print("conda", VERSION)
    elif words[:1] == ["info"]:
        prefix = str(Path(sys.argv[0]).resolve().parent.parent)
        print(json.dumps({"conda_prefix": prefix, "platform": str(rattler.Subdir.current()), "conda_version": VERSION}))
    elif words[:1] == ["config"]:
        print(json.dumps({"success": True, "get": {"channel_priority": "strict"}}))
    elif words[:1] == ["clean"]:
        pass  # no archives lie about
    elif words[:2] == ["env", "create"]:
        environment = yaml.safe_load(options.file.read_text())
        if sections := [entry for entry in environment["dependencies"] if not isinstance(entry, str)]:
            sys.exit(f"conda: pip sections are not supported here: {sections}")
        asyncio.run(create(environment["channels"], environment["dependencies"], options.prefix))
    elif words[:1] == ["create"]:
        lines = options.file.read_text().split()
        if "@EXPLICIT" not in lines:
            sys.exit("conda: only files with @EXPLICIT are supported here")
        asyncio.run(create_explicit([line for line in lines if line != "@EXPLICIT"], options.prefix))
    elif words[:1] == ["list"]:
        print("\n".join(explicit(options.prefix)))
    else:
        sys.exit(f"conda: not supported here: {arguments}")


if __name__ == "__main__":
    status = 0
    try:
        main(sys.argv[1:])
    except SystemExit as stop:
        print(stop.code, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # rattler's threads may still hold Python objects when the interpreter ends, and then crash
