"""A finished or half-finished study: its records as a graph of files and jobs."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from defraction import provenance

RESULTS = "results"
LEFT_OUT = {
    "wildcards": {},
    "code": {"digest": None, "files": {}},
    "environment": {"python": "not recorded", "packages": {}},
    "host": {},
    "device": "not recorded",
    "started": 0.0,
    "seconds": 0.0,
    "cpu_seconds": 0.0,
    "max_rss_mib": 0.0,
}
"""What stands for facts that a published record does not have."""
ROWS = {"hosts": "host", "source": "material"}
"""Tables of which a job takes one row: role of the input, and the setting that holds the row as it was taken."""


@dataclass
class Study:
    """The records below `root`/results.

    Attributes:
        root: the study's folder; paths in records are relative to it.
        records: those that can be read, sorted by path; each has its own path as `record`.
        broken: path and fault of those that cannot.
    """

    root: Path
    records: list[dict] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    _shipped: dict[str, dict | None] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, root: Path | str = ".") -> "Study":
        """Read all records of a study.

        Raises:
            ValueError: the folder has none.
        """
        study = cls(Path(root))
        for path in provenance.record_paths(study.root / RESULTS):
            name = path.relative_to(study.root).as_posix()
            try:
                study.records.append({**LEFT_OUT, **provenance.read_record(path), "record": name})
            except (ValueError, OSError) as error:
                study.broken[name] = str(error)
        if not study.records and not study.broken:
            raise ValueError(f"{study.root / RESULTS}: no records; run the study first, and start this in its folder")
        return study

    @classmethod
    def holding(cls, file: Path | str, known: "Study | None" = None) -> tuple["Study", str]:
        """The study that a file belongs to, and the file's path in it; `known` is not loaded again if it is that one.

        A result tells its study by the folder `results` above it; any other file belongs to the working directory.

        Raises:
            ValueError: that folder has no records.
        """
        path = Path(os.path.abspath(file))
        root = next((parent.parent for parent in path.parents if parent.name == RESULTS), Path.cwd())
        inside = path.is_relative_to(root)
        here = Path(os.path.relpath(root))
        study = known if known is not None and known.root == here else cls.load(here)
        return study, path.relative_to(root).as_posix() if inside else str(path)

    @cached_property
    def makers(self) -> dict[str, dict]:
        """Which record made which file."""
        return {output["path"]: record for record in self.records for output in record["outputs"]}

    @cached_property
    def readers(self) -> dict[str, list[dict]]:
        """Which records read which file, code left out."""
        out: dict[str, list[dict]] = {}
        for record in self.records:
            for item in contents(record):
                out.setdefault(item["path"], []).append(record)
        return out

    def shipped(self, path: str) -> dict | None:
        """The record that lies beside a source which an earlier study computed (resources/structures); else None.

        It gets its own path as `record`; the paths in it are those of that study.
        """
        if path not in self._shipped:
            self._shipped[path] = None
            source = self.root / path
            for stem in {source.stem, source.name.split(".")[0]}:
                beside = source.with_name(f"{stem}.record.json")
                try:
                    record = provenance.read_record(beside)
                except (OSError, ValueError):
                    continue
                self._shipped[path] = {**LEFT_OUT, **record, "record": os.path.relpath(beside, self.root)}
        return self._shipped[path]

    def beside(self, path: str) -> list[str]:
        """Further files that were shipped with a source: those of the same stem in its folder, the record left out."""
        source = self.root / path
        stem = source.name.split(".")[0]
        names = sorted(other.name for other in source.parent.glob(f"{stem}.*") if other != source)
        return [str(Path(path).with_name(name)) for name in names if not name.endswith(".record.json")]

    def maker(self, path: str) -> dict:
        """The record of the job that made a file.

        Raises:
            ValueError: there is none; says what is the matter.
        """
        if path in self.makers:
            return self.makers[path]
        if path in self.readers:
            raise ValueError(f"{path}: a source of this study, made by no job of it; name a result")
        near = [name for name in self.broken if Path(name).parent == Path(path).parent]
        hint = f" (damaged: {', '.join(near[:3])})" if near else ""
        raise ValueError(f"{path}: no record made this file{hint}; name a result of the workflow")

    def above(self, paths: list[str]) -> list[dict]:
        """The records of the jobs behind files, each once, makers before their readers."""
        return _ordered(
            [self.makers[path] for path in paths if path in self.makers],
            lambda record: [self.makers[i["path"]] for i in contents(record) if i["path"] in self.makers],
        )

    def below(self, paths: list[str]) -> list[dict]:
        """The records of the jobs that depend on files, each once, nearest first in the order of the workflow."""
        readers = [record for path in paths for record in self.readers.get(path, [])]
        return _ordered(readers, self._readers_of)[::-1]

    def _readers_of(self, record: dict) -> list[dict]:
        return [reader for output in record["outputs"] for reader in self.readers.get(output["path"], [])]


def contents(record: dict) -> list[dict]:
    """A record's inputs without the code, which its digest stands for."""
    return [item for item in record["inputs"] if item["role"] != "code"]


def settings(record: dict) -> dict:
    """A record's settings without the digest of the code."""
    return {key: value for key, value in record["params"].items() if key != "code"}


def outside(path: str) -> bool:
    """Whether a recorded path leads out of the study's folder."""
    return os.path.isabs(path) or Path(path).parts[:1] == ("..",)


def without_folders(value):
    """Plain values in which each path that leads out of the study is cut to its name."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and outside(value) else value


def tells_of(record: dict | None, digest: str) -> bool:
    """Whether a record has an output of this SHA-256."""
    return record is not None and any(output["sha256"] == digest for output in record["outputs"])


def computed(record: dict) -> dict:
    """The record of the job that computed a result: of another study if it came from the cache."""
    return record["cache"]["record"] if "cache" in record else record


def _ordered(start: list[dict], following) -> list[dict]:
    """Records reachable from `start`, each after all of `following` that lead on from it (depth first)."""
    done: dict[str, dict] = {}
    open_ = set()
    stack = [(record, False) for record in reversed(start)]
    while stack:
        record, left = stack.pop()
        name = record["record"]
        if left:
            done.setdefault(name, record)
        elif name not in open_:
            open_.add(name)
            stack.append((record, True))
            stack += [(other, False) for other in following(record) if other["record"] not in open_]
    return list(done.values())
