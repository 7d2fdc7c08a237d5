"""From a result back to its sources: as data, as text, as a graph."""

import json
from collections import Counter
from datetime import UTC, datetime

from defraction.lineage.study import Study, computed, contents, settings, tells_of
from defraction.provenance import spent

SCHEMA = "defraction-trace/1"
SHOWN = 80  # characters of one setting in the text
ALIKE = 1  # branches of the same kind that are drawn; the others are counted


def trace(study: Study, path: str) -> dict:
    """All jobs and files behind a result, each once (docs/provenance.md lists the keys).

    Raises:
        ValueError: no record made the file.
    """
    target = study.maker(path)
    records = study.above([path])
    files: dict[str, dict] = {}
    for record in records:
        for item in contents(record):
            made_by = study.makers.get(item["path"])
            if item["path"] not in files:
                files[item["path"]] = _file(item, made_by)
                if made_by is None and tells_of(beside := study.shipped(item["path"]), item["sha256"]):
                    files[item["path"]]["shipped"] = {**_job(beside), "beside": study.beside(item["path"])}
        for item in record["outputs"]:
            files[item["path"]] = _file(item, record)
    return {
        "schema": SCHEMA,
        "target": path,
        "target_record": target["record"],
        "files": [files[name] for name in sorted(files)],
        "jobs": [_job(record) for record in reversed(records)],
        "total": total(records, {f["shipped"]["record"]: f["shipped"] for f in files.values() if "shipped" in f}),
    }


def total(records: list[dict], shipped: dict[str, dict]) -> dict:
    """Cost of jobs, each counted once: here, where results from the cache were computed, and of shipped sources."""
    cached = [record["cache"]["record"] for record in records if "cache" in record]
    return {
        "jobs": len(records),
        "cpu_seconds": round(sum(spent(record, "cpu_seconds") for record in records), 3),
        "seconds": round(sum(spent(record, "seconds") for record in records), 3),
        "cached_jobs": len(cached),
        "cached_cpu_seconds": round(sum(spent(record, "cpu_seconds") for record in cached), 3),
        "shipped_jobs": len(shipped),
        "shipped_cpu_seconds": round(sum(job["cpu_seconds"] for job in shipped.values()), 3),
    }


def _file(item: dict, record: dict | None) -> dict:
    return {
        "path": item["path"],
        "sha256": item["sha256"],
        "bytes": item["bytes"],
        "made_by": record["record"] if record else None,
    }


def _job(record: dict) -> dict:
    origin = computed(record)
    job = {
        "record": record["record"],
        "rule": record["rule"],
        "wildcards": record.get("wildcards", {}),
        "settings": settings(record),
        "inputs": [{"path": i["path"], "role": i["role"], "sha256": i["sha256"]} for i in contents(record)],
        "outputs": [{"path": o["path"], "role": o["role"], "sha256": o["sha256"]} for o in record["outputs"]],
        "code": record["code"],
        "configuration": record.get("configuration"),
        "environment": origin["environment"],
        "host": origin["host"],
        "device": origin["device"],
        "started": record["started"],
        "seconds": spent(record, "seconds"),
        "cpu_seconds": spent(record, "cpu_seconds"),
        "max_rss_mib": record["max_rss_mib"],
    }
    if "cache" in record:
        keys = ("started", "outputs", "code", "log")
        job["cache"] = {"key": record["cache"]["key"], **{key: origin[key] for key in keys if key in origin}}
        job["cache"] |= {unit: spent(origin, unit) for unit in ("seconds", "cpu_seconds")}
    return job


# --- what is drawn: branches of one kind folded -----------------------------------------------------------------------


def fold(traced: dict) -> dict:
    """A trace as a tree of {file, job, role, children, more}, to be drawn.

    A job that was met before is not unfolded again (`seen`). Of branches of one kind (same rules all the way up) under
    one job the first is kept; `more` has the others as (files, rules in words).
    """
    files = {item["path"]: item for item in traced["files"]}
    jobs = {job["record"]: job for job in traced["jobs"]}
    kinds: dict[str, frozenset | tuple] = {}
    for job in reversed(traced["jobs"]):  # makers first
        inputs = frozenset(_kind(files[item["path"]], kinds) for item in job["inputs"])
        kinds[job["record"]] = (job["rule"], "cache" in job, inputs)
    seen: set[str] = set()

    def node(path: str, role: str | None) -> dict:
        file = files[path]
        job = jobs.get(file["made_by"])
        out = {"file": file, "job": job, "role": role, "children": [], "more": [], "seen": False}
        if job is None:
            return out
        if job["record"] in seen:
            return {**out, "seen": True}
        seen.add(job["record"])
        groups: dict[tuple, list[dict]] = {}
        for item in job["inputs"]:
            file = files[item["path"]]
            groups.setdefault((item["role"], _kind(file, kinds)), []).append(item)
        for group in groups.values():
            out["children"] += [node(item["path"], item["role"]) for item in group[:ALIKE]]
            if len(group) > ALIKE:
                rest = [files[item["path"]] for item in group[ALIKE:]]
                out["more"].append((rest, _chain(rest[0], files, jobs)))
        return out

    return node(traced["target"], None)


def _kind(file: dict, kinds: dict) -> tuple:
    return ("file", kinds.get(file["made_by"], "source"))


def _chain(file: dict, files: dict, jobs: dict) -> str:
    """The rules behind a file by the first input of each that a job made: `predict < simulate < structure_strain`."""
    rules = []
    while (job := jobs.get(file["made_by"])) is not None:
        rules.append(job["rule"])
        made = [files[item["path"]] for item in job["inputs"] if files[item["path"]]["made_by"]]
        if not made:
            break
        file = made[-1]
    return " < ".join(rules) or "source"


# --- text -------------------------------------------------------------------------------------------------------------


def draw(traced: dict, full: bool = False):
    """The trace as a rich renderable: the tree, the environments met, the cost; `full`: settings uncut."""
    from rich.console import Group
    from rich.text import Text
    from rich.tree import Tree

    environments: dict[str, int] = {}

    def label(node: dict) -> Text:
        file, job = node["file"], node["job"]
        text = Text(file["path"], style="bold")
        text.append(f"  sha256 {file['sha256'][:16]}", style="cyan")
        text.append(f"  {size(file['bytes'])}", style="dim")
        if job is None:
            text.append("  source", style="green")
            if "shipped" not in file:
                return text
            job = file["shipped"]
            text.append(f"\nshipped with its record {job['record']}", style="magenta")
            text.append(f"\nbeside it: {', '.join(job['beside'])}" if job["beside"] else "")
            text.append("\ncomputed in another study by:", style="magenta")
        elif node["seen"]:
            return text.append(f"  {job['rule']}, see above", style="dim")
        number = environments.setdefault(environment(job), len(environments) + 1)
        text.append(f"\n{job['rule']}", style="yellow")
        text.append(f"  {when(job['started'])}  {duration(job['seconds'])} wall, {duration(job['cpu_seconds'])} CPU")
        text.append(f"  code {job['code']['digest']}  environment {number}")
        if "cache" in job:
            origin = job["cache"]
            text.append(
                f"\nfrom the cache ({origin['key'][:16]}): computed {when(origin['started'])}, "
                f"{duration(origin['seconds'])} wall, {duration(origin['cpu_seconds'])} CPU",
                style="magenta",
            )
        for other in job["outputs"]:
            if other["role"] == "log" and "beside" not in job:
                text.append(f"\ncalculator's input and log: {other['path']}  sha256 {other['sha256'][:16]}")
        if job["settings"]:
            text.append(f"\n{short(job['settings'], None if full else SHOWN)}", style="dim")
        return text

    def grow(branch: Tree, node: dict) -> None:
        for child in node["children"]:
            grow(branch.add(label(child)), child)
        for rest, rules in node["more"]:
            branch.add(Text(f"... and {len(rest)} more like it ({rules}): {rest[0]['path']} ...", style="italic dim"))

    root = fold(traced)
    tree = Tree(label(root), guide_style="dim")
    grow(tree, root)
    lines = [f"environment {number}: {text}" for text, number in environments.items()]
    ran_with = {item["path"]: item["sha256"] for job in traced["jobs"] if (item := job["configuration"])}
    lines += [f"configuration of the run: {path}  sha256 {digest[:16]}" for path, digest in sorted(ran_with.items())]
    cost = traced["total"]
    summary = f"{cost['jobs']} job{'s' if cost['jobs'] != 1 else ''} behind it: "
    summary += f"{duration(cost['cpu_seconds'])} CPU, {duration(cost['seconds'])} wall"
    if cost["cached_jobs"]:
        summary += (
            f"; {cost['cached_jobs']} of them from the cache, computed before in "
            f"{duration(cost['cached_cpu_seconds'])} CPU"
        )
    if cost["shipped_jobs"]:
        summary += f"; {cost['shipped_jobs']} more made shipped sources in {duration(cost['shipped_cpu_seconds'])} CPU"
    sources = sum(file["made_by"] is None for file in traced["files"])
    lines.append(f"{summary}; {sources} source{'s' if sources != 1 else ''}")
    return Group(tree, Text(""), *(Text(line) for line in lines))


def environment(job: dict) -> str:
    """Python, packages, device and system of a job in one line."""
    versions = [f"{name} {p['version']}" for name, p in sorted(job["environment"]["packages"].items())]
    host = job["host"]
    where = job["device"] + (f" on {host['name']}" if host.get("name") else "")
    where = ", ".join([where, *(host[key] for key in ("machine", "system") if key in host)])
    return f"Python {job['environment']['python']}, {', '.join(versions) or 'no further packages'}; {where}"


def short(values: dict, limit: int | None = SHOWN) -> str:
    """Settings in one line, each value cut after `limit` characters."""
    out = []
    for key, value in sorted(values.items()):
        text = json.dumps(value, ensure_ascii=False)
        out.append(f"{key}={text if limit is None or len(text) <= limit else text[: limit - 1] + '…'}")
    return "  ".join(out)


def when(seconds: float) -> str:
    """A time in seconds since 1970 in words, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """A length of time [s] in the unit that reads best."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """A number of bytes in the unit that reads best."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


# --- graph ------------------------------------------------------------------------------------------------------------


def dot(traced: dict) -> str:
    """The trace as a graph in the DOT language of Graphviz: boxes are files, ellipses jobs, arrows the way of the data.

    Branches of one kind are folded into one box with their number, as in the text.
    """
    lines = ["digraph trace {", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=10];']
    drawn: Counter[str] = Counter()

    def once(line: str) -> None:
        drawn[line] += 1
        if drawn[line] == 1:
            lines.append(f"  {line}")

    def add(node: dict) -> None:
        file, job = node["file"], node["job"]
        style = "" if job else ", style=filled, fillcolor=honeydew"
        once(f"{_quoted(file['path'])} [shape=box{style}, label={_quoted(file['path'], file['sha256'][:16])}];")
        if job is None:
            return
        name = f"job {job['record']}"
        facts = [when(job["started"]), f"{duration(job['cpu_seconds'])} CPU"]
        if "cache" in job:
            facts.append(f"from the cache, {duration(job['cache']['cpu_seconds'])} CPU before")
        once(f"{_quoted(name)} [shape=ellipse, label={_quoted(job['rule'], *facts)}];")
        once(f"{_quoted(name)} -> {_quoted(file['path'])};")
        for child in node["children"]:
            add(child)
            once(f"{_quoted(child['file']['path'])} -> {_quoted(name)};")
        for number, (rest, rules) in enumerate(node["more"]):
            folded = f"more {number} {job['record']}"
            once(f"{_quoted(folded)} [shape=box3d, style=dashed, label={_quoted(f'{len(rest)} more', rules)}];")
            once(f"{_quoted(folded)} -> {_quoted(name)};")

    add(fold(traced))
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(*lines: str) -> str:
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
