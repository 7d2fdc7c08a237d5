"""A finished or half-finished study: its records as a graph of files and jobs."""

import contextlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from defraction import provenance

RESULTS = "results"
TWOFOLD = ("record.json", "gpaw.txt")
"""Suffixes of files of the workflow that have a dot in them."""
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
    _shelves: dict[str, dict[str, tuple[str, dict]]] = field(default_factory=dict, repr=False)

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
            beside = (self.root / path).with_name(f"{parted(path)[0]}.record.json")
            with contextlib.suppress(OSError, ValueError):
                record = provenance.read_record(beside)
                self._shipped[path] = {**LEFT_OUT, **record, "record": os.path.relpath(beside, self.root)}
        return self._shipped[path]

    def beside(self, path: str) -> list[str]:
        """Further files that were shipped with a source: those of the same stem in its folder, the record left out."""
        source = self.root / path
        names = sorted(other.name for other in of_stem(source.parent, parted(path)[0]) if other != source)
        return [str(Path(path).with_name(name)) for name in names if not name.endswith(".record.json")]

    @cached_property
    def configurations(self) -> dict[str, dict]:
        """The configurations that results were made with, by path: `path`, `bytes`, `sha256`."""
        return {item["path"]: item for record in self.records for item in configuration(record)}

    @cached_property
    def earlier(self) -> list[dict]:
        """The jobs of earlier studies behind shipped sources, each once, readers before their makers.

        Of what such a job read, the maker is told by the SHA-256 of the content, among the records shipped in the
        source's folder and below. Each record gets its own path as `record`, and as `here` the paths in this study of
        files that it tells of, by SHA-256; its own paths are those of that study.
        """
        found: dict[str, dict] = {}
        for source in sorted(path for path in self.readers if path not in self.makers):
            if (beside := self.shipped(source)) is None:
                continue
            read = [item for record in self.readers[source] for item in contents(record) if item["path"] == source]
            todo = [beside] if any(tells_of(beside, item["sha256"]) for item in read) else []
            while todo:
                record = todo.pop()
                if record["record"] in found:
                    continue
                makers = self._shelf(str(Path(source).parent))
                wanted = {item["sha256"] for item in (*record["outputs"], *contents(record))}
                here = {digest: path for digest, (path, _) in makers.items() if digest in wanted}
                found[record["record"]] = {**record, "here": here}
                todo += [makers[item["sha256"]][1] for item in contents(record) if item["sha256"] in makers]
        return list(found.values())

    def _shelf(self, folder: str) -> dict[str, tuple[str, dict]]:
        """Files in a folder and below that the records shipped beside them tell of: by SHA-256, path and record."""
        if folder not in self._shelves:
            shelf = self._shelves[folder] = {}
            for beside in sorted((self.root / folder).rglob("*.record.json")):
                stem = beside.name.removesuffix(".record.json")
                for path in sorted(of_stem(beside.parent, stem)):
                    name = os.path.relpath(path, self.root)
                    record = self.shipped(name) if path != beside else None
                    if record is not None and tells_of(record, digest := provenance.sha256(path)):
                        shelf[digest] = (name, record)
        return self._shelves[folder]

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


def parted(path: Path | str) -> tuple[str, str]:
    """Stem and suffix of a file's name; the stem, an id, may have dots: al-thermal-312.5K-2x2x2 and gpaw.txt."""
    name = Path(path).name
    for suffix in TWOFOLD:
        if name.endswith(f".{suffix}"):
            return name.removesuffix(f".{suffix}"), suffix
    return Path(name).stem, Path(name).suffix.removeprefix(".")


def of_stem(folder: Path, stem: str) -> list[Path]:
    """The files of a folder that have this stem, whatever their suffix."""
    return [path for path in folder.glob(f"{stem}.*") if parted(path)[0] == stem]


def contents(record: dict) -> list[dict]:
    """A record's inputs without the code, which its digest stands for."""
    return [item for item in record["inputs"] if item["role"] != "code"]


def settings(record: dict) -> dict:
    """A record's settings without the digest of the code."""
    return {key: value for key, value in record["params"].items() if key != "code"}


def configuration(record: dict) -> list[dict]:
    """The configuration of the run in which a job ran, as `contents` has files; none where it was not recorded."""
    return [{**record["configuration"], "role": "configuration"}] if "configuration" in record else []


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
