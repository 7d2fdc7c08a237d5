"""Is every file what its record says? What depends on one that is not?"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from defraction.digest import SCRIPTS, file_digest
from defraction.lineage.study import RESULTS, ROWS, Study, configuration, contents, tells_of
from defraction.lineage.trace import when
from defraction.provenance import CONFIGURATIONS, segments_mark, sha256

LIBRARY = "workflow/scripts/defraction"


@dataclass
class Fault:
    """Something that is not as recorded: the file, what is wrong in words, the records of the jobs below it."""

    path: str
    text: str
    below: list[dict] = field(default_factory=list)


@dataclass
class Verdict:
    """What a check found.

    Attributes:
        records, files, size: how many were checked [size in bytes].
        damaged: results and records that are not what was written.
        outdated: results made from another version of a file than there is now; the workflow mends them.
        sources: committed or given files that changed since they were read.
        notes: nothing wrong, but worth knowing.
    """

    records: int = 0
    files: int = 0
    size: int = 0
    damaged: list[Fault] = field(default_factory=list)
    outdated: list[Fault] = field(default_factory=list)
    sources: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(study: Study, paths: list[str] | None = None, advance: Callable[[int, int], None] | None = None) -> Verdict:
    """Hash every recorded file again and compare it with what its maker wrote and its readers read.

    Args:
        study: the records.
        paths: results to which the check is limited, with all that is behind them; None: everything.
        advance: called with (bytes hashed, bytes in all) as hashing goes on.

    Raises:
        ValueError: no record made one of `paths`.
    """
    records = study.records if paths is None else study.above([o for p in paths for o in _outputs(study.maker(p))])
    verdict = Verdict(records=len(records))
    ran_with = {item["path"] for record in records for item in configuration(record)}
    wanted = ran_with | {item["path"] for record in records for item in (*record["outputs"], *contents(record))}
    present = {path: digest for path, digest in hash_files(study.root, wanted, advance).items() if digest is not None}
    verdict.files = len(present)
    verdict.size = sum(os.path.getsize(study.root / path) for path in present)

    _broken_records(study, paths, verdict)
    unrecorded = _unrecorded(study)
    _results(study, records, present, unrecorded, verdict)
    _readings(study, records, present, verdict)
    _configurations(study, records, present, verdict)
    _code(study, records, verdict)
    if paths is None and unrecorded:
        more = f" and {len(unrecorded) - 3} more" if len(unrecorded) > 3 else ""
        verdict.notes.append(
            f"{len(unrecorded)} file{'s' if len(unrecorded) > 1 else ''} below {RESULTS}/ without a record: "
            f"{', '.join(unrecorded[:3])}{more}"
        )
    return verdict


def hash_files(
    root: Path, paths: Iterable[str], advance: Callable[[int, int], None] | None = None
) -> dict[str, str | None]:
    """SHA-256 of files, by several threads (hashing leaves Python's lock); None for one that cannot be read."""
    sizes = {path: os.path.getsize(root / path) if (root / path).is_file() else 0 for path in paths}
    order = sorted(sizes, key=sizes.__getitem__, reverse=True)
    whole, done = sum(sizes.values()), 0

    def one(path: str) -> str | None:
        try:
            return sha256(root / path)
        except OSError:
            return None

    digests = {}
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for path, digest in zip(order, pool.map(one, order), strict=True):
            digests[path] = digest
            done += sizes[path]
            if advance is not None:
                advance(done, whole)
    return digests


def lines(verdict: Verdict) -> list[str]:
    """A verdict in words."""
    out = []
    for title, faults in (
        ("damaged", verdict.damaged),
        ("out of date", verdict.outdated),
        ("source changed", verdict.sources),
    ):
        for fault in faults:
            out.append(f"{title}: {fault.path}: {fault.text}")
            out += [f"    {line}" for line in chain(fault.below)]
    if verdict.damaged:
        out.append("To mend: put the file back from a copy, or delete it with its record and run the workflow again.")
    if verdict.outdated:
        out.append("To mend what is out of date: run the workflow again.")
    out += [f"note: {note}" for note in verdict.notes]
    counted = f"{verdict.records} records, {verdict.files} files, {verdict.size / 1e6:.1f} MB"
    if verdict.damaged or verdict.outdated:
        out.append(f"{counted}: {len(verdict.damaged)} damaged, {len(verdict.outdated)} out of date")
    elif verdict.sources:
        out.append(f"{counted}: every result is as it was recorded; {len(verdict.sources)} source(s) changed since")
    else:
        out.append(f"{counted}: every file is as it was recorded")
    return out


def chain(records: list[dict]) -> list[str]:
    """The jobs below a file, one line a rule in the order of the workflow, with the first of their files."""
    rules: dict[str, list[str]] = {}
    for record in records:
        rules.setdefault(record["rule"], []).extend(o["path"] for o in record["outputs"])
    width = max(map(len, rules), default=0)
    return [
        f"-> {rule:{width}}  {', '.join(files[:2])}{f' and {len(files) - 2} more' if len(files) > 2 else ''}"
        for rule, files in rules.items()
    ]


def _outputs(record: dict) -> list[str]:
    return [output["path"] for output in record["outputs"]]


def _broken_records(study: Study, paths: list[str] | None, verdict: Verdict) -> None:
    for name, why in study.broken.items():
        beside = [p for p in study.readers if Path(p).parent == Path(name).parent and p not in study.makers]
        if paths is None or beside:
            text = f"{why}; what it tells of cannot be checked"
            verdict.damaged.append(Fault(name, text, study.below(beside)))


def _results(study: Study, records: list[dict], present: dict, unrecorded: list[str], verdict: Verdict) -> None:
    for record in records:
        for output in record["outputs"]:
            path = output["path"]
            if study.makers[path] is not record:
                other = study.makers[path]["record"]
                verdict.damaged.append(Fault(record["record"], f"tells of {path}, and so does {other}; delete one"))
            elif path not in present:
                moved = next((p for p in unrecorded if _same(study.root / p, output)), None)
                where = f"; its content is now in {moved}" if moved else ""
                verdict.damaged.append(Fault(path, f"gone{where}", study.below([path])))
            elif present[path] != output["sha256"]:
                size = os.path.getsize(study.root / path)
                sizes = f"{size} bytes" if size == output["bytes"] else f"{output['bytes']} bytes then, {size} now"
                text = (
                    f"not what {record['rule']} wrote on {when(record['started'])} "
                    f"(sha256 {output['sha256'][:16]} then, {present[path][:16]} now; {sizes})"
                )
                verdict.damaged.append(Fault(path, text, study.below([path])))


def _readings(study: Study, records: list[dict], present: dict, verdict: Verdict) -> None:
    """Compare what was read with what the makers wrote, and sources with what they are now."""
    read: dict[str, list[tuple[dict, dict]]] = {}
    for record in records:
        for item in contents(record):
            read.setdefault(item["path"], []).append((item, record))
    tables: dict[str, dict] = {}
    broken = {Path(name).parent for name in study.broken}
    for path, readings in sorted(read.items()):
        if path in study.makers:
            written = next(o for o in study.makers[path]["outputs"] if o["path"] == path)["sha256"]
            stale = [record for item, record in readings if item["sha256"] != written]
            if stale:
                text = (
                    f"made again on {when(study.makers[path]['started'])}; "
                    f"{_number(stale, 'result')} below it read another version"
                )
                verdict.outdated.append(Fault(path, text, _with_below(study, stale)))
        elif path.startswith(f"{RESULTS}/"):
            faults = []
            if Path(path).parent not in broken:
                faults.append("its record is gone, so what made it cannot be told")
            if {item["sha256"] for item, _ in readings} != {present.get(path)}:
                faults.append("gone" if path not in present else "not what was read from it")
            if faults:
                verdict.damaged.append(Fault(path, "; ".join(faults), study.below([path])))
        elif path not in present:
            readers = [record for _, record in readings]
            text = f"gone since {_number(readers, 'result')} read it"
            verdict.sources.append(Fault(path, text, _with_below(study, readers)))
        else:
            beside = study.shipped(path)
            if beside is not None and not tells_of(beside, present[path]):
                text = f"not what the record beside it, {beside['record']}, tells of"
                verdict.sources.append(Fault(path, text, study.below([path])))
            changed = [(item, record) for item, record in readings if item["sha256"] != present[path]]
            _source(study, path, changed, tables, verdict)


def _configurations(study: Study, records: list[dict], present: dict, verdict: Verdict) -> None:
    """The configurations that results were made with: the settings of each job are in its record too."""
    made: dict[str, list[dict]] = {}
    for record in records:
        for item in configuration(record):
            made.setdefault(item["path"], []).append(record)
    for path, readers in sorted(made.items()):
        if present.get(path) != study.configurations[path]["sha256"]:
            state = "gone" if path not in present else "changed"
            text = (
                f"the configuration of {_number(readers, 'result')}, {state} since; a job that runs with it writes it"
            )
            verdict.damaged.append(Fault(path, text))


def _source(study: Study, path: str, changed: list[tuple[dict, dict]], tables: dict, verdict: Verdict) -> None:
    """A source that is not what some jobs read: of a table, only the rows that they took count."""
    if not changed:
        return
    same, other = [], []
    for item, record in changed:
        taken = record["params"].get(ROWS.get(item["role"], ""))
        row = None
        if taken is not None:
            if path not in tables:
                tables[path] = _rows(study.root / path, item["role"])
            row = tables[path].get(taken.get("material") or taken.get("name"))
        # a table names itself by the path it was read from
        unchanged = row is not None and all(row.get(k) == v for k, v in taken.items() if k != "source")
        (same if unchanged else other).append(record)
    if same:
        verdict.notes.append(
            f"{path} changed since {_number(same, 'result')} took a row from it; "
            f"the row{'s are' if len(same) > 1 else ' is'} the same"
        )
    if other:
        verb = "made from what it was" if len(other) > 1 else f"({other[0]['record']}) made from what it was"
        text = f"{_number(other, 'result')} {verb} before"
        verdict.sources.append(Fault(path, text, _with_below(study, other)))


def _rows(path: Path, role: str) -> dict[str, dict]:
    """The rows of a table by name, as jobs take them; empty if it is none or cannot be read."""
    from defraction import hosts, materials

    if path.suffix != ".csv":
        return {}
    try:
        rows = hosts.read_hosts(path) if role == "hosts" else materials.read_table(path)
    except (ValueError, OSError):
        return {}
    return {name: asdict(row) for name, row in rows.items()}


def _code(study: Study, records: list[dict], verdict: Verdict) -> None:
    """Files of code that are not what results were made with; the workflow makes those results again.

    A study that is no clone itself was made by the clone of this library, as a module of another workflow.
    """
    root = study.root if (study.root / LIBRARY).is_dir() else SCRIPTS.parent.parent
    now: dict[str, str | None] = {}
    changed: dict[str, list[dict]] = {}
    for record in records:
        for path, digest in record["code"].get("files", {}).items():
            if path not in now:
                try:
                    now[path] = file_digest((root / path).resolve())
                except (OSError, SyntaxError):
                    now[path] = None
            if now[path] != digest:
                changed.setdefault(path, []).append(record)
    for path, made in sorted(changed.items()):
        state = "gone or not readable" if now[path] is None else "changed"
        verdict.notes.append(
            f"{path} (code) {state} since {_number(made, 'result')} {'were' if len(made) > 1 else 'was'} made with it; "
            "the workflow makes them again"
        )


def _unrecorded(study: Study) -> list[str]:
    """Files below results/ that no record tells of, hidden ones and records left out."""
    out = []
    marks = {segments_mark(record["record"]).as_posix() for record in study.records if record.get("segments", 1) > 1}
    for folder, folders, files in os.walk(study.root / RESULTS):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name).relative_to(study.root).as_posix()
            known = path in study.makers or path in study.readers or path in marks
            known = known or Path(path).parent == CONFIGURATIONS
            if not known and not name.startswith(".") and not name.endswith(".record.json"):
                out.append(path)
    return sorted(out)


def _same(path: Path, output: dict) -> bool:
    return path.stat().st_size == output["bytes"] and sha256(path) == output["sha256"]


def _with_below(study: Study, records: list[dict]) -> list[dict]:
    """Records and all below them, in the order of the workflow."""
    below = study.below([path for record in records for path in _outputs(record)])
    names = {record["record"] for record in below}
    return [record for record in records if record["record"] not in names] + below


def _number(records: list[dict], noun: str) -> str:
    return f"{len(records)} {noun}{'s' if len(records) > 1 else ''}"
