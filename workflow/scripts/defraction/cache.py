"""Cache of costly results between studies, users and clones: what was computed once is not computed again.

An entry is a folder named by the digest of all that determines a result: rule, settings (with the digest of the
library code), contents of the inputs, versions of the packages that compute it. Snakemake's own `cache:` knows neither
imported code nor package versions and leaves links into the cache in place of results.

Several workflows may share a folder, also over a network file system: an entry appears by one rename, its files are
read-only, each is copied out under a temporary name and checked against its SHA-256 on the way. An entry that fails the
check is refused, computed anew and replaced.
"""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

logger = logging.getLogger(__name__)

SCHEMA = "defraction-cache/1"
VARIABLE = "DEFRACTION_CACHE"
PACKAGES = ("ase", "gpaw", "gpaw-data", "spglib")
"""Packages whose version decides a first-principles result; others (numpy, scipy) change its rounding only."""
LEFT_OUT = ("code", "hosts", "segment")
"""Roles of inputs that are no content: code is in `params` as a digest, the host's row too, a segment is a marker."""


def folder(configured: str | None) -> Path | None:
    """Folder of the cache: `runtime.cache`, else the environment variable DEFRACTION_CACHE, else None."""
    chosen = configured or os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def content(rule: str, wildcards: Mapping[str, str], params: Mapping, inputs: list[dict]) -> dict:
    """All that determines a result, as plain values; its digest names the entry.

    Args:
        rule: rule of the job; the segments of a long job go by the name of the last one.
        wildcards: names in the rule's paths.
        params: settings with the code digest, as in the record.
        inputs: entries of the record (`role`, `sha256`).

    Raises:
        importlib.metadata.PackageNotFoundError: one of PACKAGES is not installed.
    """
    return {
        "schema": SCHEMA,
        "rule": rule.removesuffix("_segment"),
        "wildcards": {key: value for key, value in wildcards.items() if key != "left"},
        "params": json.loads(json.dumps(dict(params), sort_keys=True, default=str)),
        "inputs": sorted([item["role"], item["sha256"]] for item in inputs if item["role"] not in LEFT_OUT),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "paw_data": _paw_data(),
    }


class Entry:
    """One entry of a cache: `key`, `path` (its folder), `content`."""

    def __init__(self, folder: Path, content: dict) -> None:
        self.folder, self.content = Path(folder), content
        text = json.dumps(content, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self.path = self.folder / self.key[:2] / self.key

    def facts(self) -> dict | None:
        """What the entry says of itself: `content`, `files` by role, `record` of the job that computed them; None if
        there is no entry.

        Raises:
            ValueError: the entry is damaged.
        """
        try:
            text = (self.path / "entry.json").read_bytes().decode(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            facts = json.loads(text)
            digest = facts.pop("digest")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError("entry.json cannot be read") from None
        if digest != _digest(facts) or facts["content"] != self.content:
            raise ValueError("entry.json was changed or belongs to another entry")
        return facts

    def fetch(self, targets: Mapping[str, Path]) -> dict | None:
        """Copy the results to `targets` (path by role); return the record of the job that computed them.

        Returns:
            None if there is no entry, or one that is damaged or cannot be read (logged as a warning); then nothing is
            left at `targets`.
        """
        try:
            facts = self.facts()
            if facts is None:
                return None
            if set(facts["files"]) != set(targets):
                raise ValueError(f"it has {sorted(facts['files'])}, not {sorted(targets)}")
            for role, target in targets.items():
                file = facts["files"][role]
                if _copy(self.path / file["name"], target) != file["sha256"]:
                    raise ValueError(f"{file['name']} is not what was stored")
        except (ValueError, OSError) as error:
            logger.warning("%s: damaged entry of the cache refused: %s; computed anew", self.path, error)
            for target in targets.values():
                target.unlink(missing_ok=True)
            return None
        return facts["record"]

    def store(self, outputs: Mapping[str, Path], record: dict) -> bool:
        """Put results and the record of their job into the cache; False if they are there or cannot be put there."""
        new = self.folder / f".new-{uuid.uuid4().hex}"
        try:
            new.mkdir(parents=True)
            files = {}
            for role, path in outputs.items():
                name = f"{role}{path.suffix}"
                files[role] = {"name": name, "sha256": _copy(path, new / name), "bytes": (new / name).stat().st_size}
            facts = {"content": self.content, "files": files, "record": record}
            text = json.dumps({**facts, "digest": _digest(facts)}, indent=1, sort_keys=True)
            (new / "entry.json").write_text(text + "\n")
            for path in new.iterdir():
                path.chmod(0o444)
            self.path.parent.mkdir(exist_ok=True)
            return self._place(new)
        except OSError as error:
            logger.warning("%s: cannot store in the cache: %s", self.folder, error)
            return False
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def sound(self) -> bool:
        """Whether the entry is there and passes the check."""
        try:
            self.check()
        except (ValueError, OSError):
            return False
        return True

    def check(self) -> None:
        """Check all files of the entry.

        Raises:
            ValueError: the entry is damaged; says where.
            OSError: it cannot be read.
        """
        facts = self.facts()
        if facts is None:
            raise ValueError("entry.json is not there")
        for file in facts["files"].values():
            with open(self.path / file["name"], "rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != file["sha256"]:
                    raise ValueError(f"{file['name']} is not what was stored")

    def _place(self, new: Path) -> bool:
        """Rename a whole new entry to its place; one that is there already stays if it is sound."""
        for _ in range(2):
            try:
                os.rename(new, self.path)
                return True
            except OSError:
                if not self.path.is_dir():
                    raise
            if self.sound():
                return False
            aside = self.folder / f".damaged-{self.key[:12]}-{uuid.uuid4().hex}"
            os.rename(self.path, aside)
            logger.warning("%s: damaged entry of the cache replaced; it is kept as %s", self.path, aside.name)
        return False


def entries(folder: Path) -> list[Entry]:
    """All entries of a cache, sorted by key; one whose `entry.json` cannot be read has an empty `content`."""
    out = []
    for path in sorted(Path(folder).glob("[0-9a-f][0-9a-f]/*")):
        try:
            content = json.loads((path / "entry.json").read_text())["content"]
        except (ValueError, KeyError, TypeError, OSError):
            content = {}
        entry = Entry(folder, content)
        entry.key, entry.path = path.name, path
        out.append(entry)
    return out


def _copy(source: Path, target: Path) -> str:
    """Copy the content of a file and return its SHA-256; the copy is made of the bytes that were hashed."""
    sha256 = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while block := reader.read(1 << 20):
            sha256.update(block)
            writer.write(block)
    return sha256.hexdigest()


def _digest(facts: dict) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _paw_data() -> str | None:
    """Digest of the user's own PAW data sets (GPAW_SETUP_PATH); None where those of gpaw-data are used."""
    folders = [Path(part) for part in os.environ.get("GPAW_SETUP_PATH", "").split(os.pathsep) if part]
    files = sorted(path for part in folders if part.is_dir() for path in part.iterdir() if path.is_file())
    if not files:
        return None
    sha256 = hashlib.sha256()
    for path in files:
        with open(path, "rb") as stream:
            sha256.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return sha256.hexdigest()
