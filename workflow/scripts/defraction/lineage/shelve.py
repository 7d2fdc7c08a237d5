"""A result of this study becomes an entry of the library of computed structures (`first_principles.library`)."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from defraction.first_principles.library import FOLDER, Library
from defraction.lineage.study import Study, computed, contents, parted, tells_of
from defraction.provenance import place, sealed, sha256, strip_host, strip_log

RULES = {"relax": "relaxed point defects", "aimd": "snapshots of molecular dynamics", "lattice": "lattice constants"}
NAME = re.compile(r"(?!.*\.record$)[A-Za-z0-9][A-Za-z0-9.+-]*")
"""As ids of conditions are; the summary of NAME.record would be taken for the record of NAME."""
PERSONAL = re.compile(r"^(User|Pid|CWD):.*\n", flags=re.MULTILINE)


def shelve(file: Path | str, folder: Path = FOLDER, name: str | None = None) -> list[Path]:
    """Copy a result with its log and record into a library, without names of users, machines and folders.

    The lattice constant that a cell stands on goes with it, if the library does not hold it: a result of the same study
    or an entry of the library that the study took it from, which is copied as it is.

    Args:
        file: a relaxation, snapshots of molecular dynamics or a lattice constant; any of its files.
        folder: of the library.
        name: of the entry; default: that of the condition, for a lattice constant host and preset.

    Returns:
        The files that were written; none if the library holds this very result.

    Raises:
        ValueError: not such a result, damaged, not converged, made by code that no commit holds, a name that no
            condition could have, or one that another entry has already. Nothing is written then.
    """
    if name is not None and not NAME.fullmatch(name):
        raise ValueError(
            f"--name {name}: no name of an entry; take letters, digits, '.', '+' and '-', a letter or digit first, and "
            "not '.record' last (the folder is that of --to)"
        )
    study, path = Study.holding(file)
    entry = _Entry(study, path, folder, name)
    planned = [] if entry.held("give another name with --name") else [entry]
    lattice = _lattice(study, entry.record, folder)
    if lattice is not None:
        below = _Entry(study, lattice, folder, None)
        if not below.held(f"export {study.root / lattice} by itself first, with --name"):
            planned.insert(0, below)
    return [written for entry in planned for written in entry.write()]


class _Entry:
    """One entry to be: where its files come from and what it will be called.

    Attributes:
        record: of the job that made it, in this study or the one behind `shipped`.
        shipped: the record's own file, if it is an entry of another library; else None.
        files: by suffix.
        stem: of the files that will be.
    """

    def __init__(self, study: Study, path: str, folder: Path, name: str | None) -> None:
        shipped = None if path in study.makers else study.shipped(path)
        self.record = record = shipped or study.maker(path)
        self.shipped = study.root / shipped["record"] if shipped else None
        if record["rule"] not in RULES:
            raise ValueError(
                f"{record['record']}: made by {record['rule']}; a library holds {', '.join(RULES.values())}"
            )
        self.origin = computed(record)
        lattice = record["rule"] == "lattice"
        if shipped:
            default = parted(path)[0]
        elif lattice:
            default = f"{record['params']['host']['name']}-{record['params']['first_principles']['preset']}"
        else:
            default = record["wildcards"]["condition"]
        self.stem = (folder / "lattice" if lattice else folder) / (name or default)
        self.files: dict[str, Path] = {}
        for output in record["outputs"]:
            suffix = parted(output["path"])[1]
            here = Path(path).with_name(f"{default}.{suffix}") if shipped else output["path"]
            self.files[suffix] = source = study.root / here
            if not source.is_file() or sha256(source) != output["sha256"]:
                raise ValueError(f"{source}: not the file that the job wrote; see defraction verify")
        self._check(record["record"])

    def _check(self, told: str) -> None:
        code = self.origin["code"]
        if not code.get("commit") or code.get("dirty") is not False:
            raise ValueError(
                f"{told}: its code is that of no commit, so nobody could repeat it; commit, then compute it again"
            )
        summary = json.loads(self.files["json"].read_text())
        if not summary.get("energies_comparable", True):
            raise ValueError(f"{told}: needed a rung of the ladder that changes energies; a library holds none such")
        if not summary.get("converged", True):
            raise ValueError(f"{told}: the relaxation ended above its largest force (fmax); a library holds none such")

    def file(self, suffix: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{suffix}")

    def held(self, remedy: str) -> bool:
        """Whether the library holds this result under this name.

        Raises:
            ValueError: it holds another one; `remedy` says how another name is given.
        """
        beside = self.file("record.json")
        if not beside.is_file():
            return False
        there = {output["sha256"] for output in json.loads(beside.read_text())["outputs"]}
        if {sha256(path) for suffix, path in self.files.items() if suffix != "gpaw.txt"} <= there:
            return True
        raise ValueError(f"{beside}: another result has this name; {remedy}, or remove that entry first")

    def write(self) -> Iterable[Path]:
        """Write the files, the record last: an entry is there when its record is."""
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        # strip_host changes what lies deep inside
        record = json.loads(json.dumps(self.origin))
        hosts = {name for name in (record["host"].get("name"),) if name}
        for suffix, source in self.files.items():
            target = self.file(suffix)
            partial = target.with_name(f".{target.name}.tmp")
            shutil.copyfile(source, partial)
            if suffix == "gpaw.txt" and not self.shipped:
                strip_log(partial, hosts, record["environment"].get("prefix"))
                partial.write_text(PERSONAL.sub("", partial.read_text()))
            place(partial, target)
            for output in record["outputs"]:
                if parted(output["path"])[1] == suffix:
                    output |= {"bytes": target.stat().st_size, "sha256": sha256(target)}
            yield target
        strip_host(record)
        for key in ("host", "record", "cache"):
            record.pop(key, None)
        target = self.file("record.json")
        partial = target.with_name(f".{target.name}.tmp")
        partial.write_text(self.shipped.read_text() if self.shipped else sealed(record))
        place(partial, target)
        yield target


def _lattice(study: Study, record: dict, folder: Path) -> str | None:
    """Path of the lattice constant that has to go with a cell; None where the library holds it, or for none.

    Raises:
        ValueError: it is nowhere as the cell's job read it.
    """
    wanted = next((item for item in contents(record) if item["role"] == "lattice"), None)
    if wanted is None or any(entry.output_digest("json") == wanted["sha256"] for entry in Library(folder).lattices):
        return None
    path = wanted["path"]
    if not any(tells_of(told, wanted["sha256"]) for told in (study.makers.get(path), study.shipped(path))):
        raise ValueError(
            f"{record['record']}: stands on the lattice constant {path}, which neither the library {folder} nor this "
            "study nor the repository holds as it was read; run the workflow again, or put that entry into the library"
        )
    return path
