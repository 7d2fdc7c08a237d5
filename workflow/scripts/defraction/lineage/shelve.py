"""A result of this study becomes an entry of the library of computed structures (`first_principles.library`)."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from defraction.first_principles.library import FOLDER, Library
from defraction.lineage.study import Study, computed, contents
from defraction.provenance import place, sealed, sha256, strip_host, strip_log

RULES = {"relax": "relaxed point defects", "aimd": "snapshots of molecular dynamics", "lattice": "lattice constants"}
PERSONAL = re.compile(r"^(User|Pid|CWD):.*\n", flags=re.MULTILINE)


def shelve(file: Path | str, folder: Path = FOLDER, name: str | None = None) -> list[Path]:
    """Copy a result with its log and record into a library, without names of users, machines and folders.

    The lattice constant that a cell stands on goes with it, if the library does not hold it and it is a result of the
    same study.

    Args:
        file: a relaxation, snapshots of molecular dynamics or a lattice constant; any of its files.
        folder: of the library.
        name: of the entry; default: that of the condition, for a lattice constant host and preset.

    Returns:
        The files that were written; none if the library holds this very result.

    Raises:
        ValueError: not such a result, damaged, not converged, made by code that no commit holds, or another entry has
            the name already. Nothing is written then.
    """
    study, path = Study.holding(file)
    planned: list[_Entry] = []
    _plan(study, study.maker(path), folder, name, planned)
    return [written for entry in planned for written in entry.write()]


class _Entry:
    """One entry to be: where its files come from and what it will be called."""

    def __init__(self, study: Study, record: dict, folder: Path, name: str | None) -> None:
        if record["rule"] not in RULES:
            raise ValueError(
                f"{record['record']}: made by {record['rule']}; a library holds {', '.join(RULES.values())}"
            )
        self.origin = computed(record)
        lattice = record["rule"] == "lattice"
        if lattice:
            default = f"{record['params']['host']['name']}-{record['params']['first_principles']['preset']}"
        else:
            default = record["wildcards"]["condition"]
        self.stem = (folder / "lattice" if lattice else folder) / (name or default)
        self.files = {_suffix(output["path"]): study.root / output["path"] for output in record["outputs"]}
        for output in record["outputs"]:
            source = study.root / output["path"]
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

    @property
    def beside(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.record.json")

    def held(self) -> bool:
        """Whether the library holds this result under this name.

        Raises:
            ValueError: it holds another one.
        """
        if not self.beside.is_file():
            return False
        there = {output["sha256"] for output in json.loads(self.beside.read_text())["outputs"]}
        if {sha256(path) for suffix, path in self.files.items() if suffix != "gpaw.txt"} <= there:
            return True
        raise ValueError(f"{self.beside}: another result has this name; give --name, or remove that entry first")

    def write(self) -> Iterable[Path]:
        """Write the files, the record last: an entry is there when its record is."""
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        # strip_host changes what lies deep inside
        record = json.loads(json.dumps(self.origin))
        hosts = {name for name in (record["host"].get("name"),) if name}
        for suffix, source in self.files.items():
            target = self.stem.with_name(f"{self.stem.name}.{suffix}")
            partial = target.with_name(f".{target.name}.tmp")
            shutil.copyfile(source, partial)
            if suffix == "gpaw.txt":
                strip_log(partial, hosts, record["environment"].get("prefix"))
                partial.write_text(PERSONAL.sub("", partial.read_text()))
            place(partial, target)
            for output in record["outputs"]:
                if _suffix(output["path"]) == suffix:
                    output |= {"bytes": target.stat().st_size, "sha256": sha256(target)}
            yield target
        strip_host(record)
        for key in ("host", "record", "cache"):
            record.pop(key, None)
        partial = self.beside.with_name(f".{self.beside.name}.tmp")
        partial.write_text(sealed(record))
        place(partial, self.beside)
        yield self.beside


def _plan(study: Study, record: dict, folder: Path, name: str | None, planned: list[_Entry]) -> None:
    entry = _Entry(study, record, folder, name)
    wanted = next((item for item in contents(record) if item["role"] == "lattice"), None)
    if wanted and all(lattice.output_digest("json") != wanted["sha256"] for lattice in Library(folder).lattices):
        if wanted["path"] not in study.makers:
            raise ValueError(
                f"{record['record']}: stands on the lattice constant {wanted['path']}, which neither the library nor "
                "this study holds"
            )
        _plan(study, study.makers[wanted["path"]], folder, None, planned)
    if not entry.held():
        planned.append(entry)


def _suffix(path: str) -> str:
    """Of results/first_principles/relax/NAME.gpaw.txt: gpaw.txt."""
    return Path(path).name.split(".", 1)[1]
