"""Why do two results differ? Settings, code, environment, and the same for what they were made from."""

import json
from pathlib import Path

from defraction.lineage.study import ROWS, Study, computed, contents, settings

SCHEMA = "defraction-diff/1"
OWN = ("settings", "code", "environment")
STATE = ("commit", "dirty")
"""State of the repository: it stands in some results, but changes none as long as the files of code are the same."""
NOT_GIVEN = "(not there)"


def diff(a: tuple[Study, str], b: tuple[Study, str]) -> dict:
    """Compare how two results were made, down to their sources.

    Args:
        a, b: a study and the path of a result in it.

    Returns:
        `same_content`; `settings`, `code`, `environment`: lists of {key, a, b} where the two jobs differ; `inputs`: the
        inputs that differ; `causes`: the first differences upstream, each {a, b, settings, code, environment, reason,
        also}, farthest first, where equal differences of several files are one cause (`also`: the other files of a).

    Raises:
        ValueError: no record made one of them.
    """
    (study_a, path_a), (study_b, path_b) = a, b
    digest_a, digest_b = _written(study_a, path_a), _written(study_b, path_b)
    own = _own(study_a.maker(path_a), study_b.maker(path_b))
    pairs = _inputs(study_a.maker(path_a), study_b.maker(path_b))
    return {
        "schema": SCHEMA,
        "a": {"study": str(study_a.root), "path": path_a, "sha256": digest_a},
        "b": {"study": str(study_b.root), "path": path_b, "sha256": digest_b},
        "same_content": digest_a == digest_b,
        **own,
        "inputs": [
            {"role": role, "a": i and i["path"], "b": j and j["path"]}
            for role, i, j in pairs
            if i is None or j is None or i["sha256"] != j["sha256"]
        ],
        "causes": _causes(study_a, study_b, path_a, path_b),
    }


def lines(found: dict) -> list[str]:
    """A comparison in words."""
    a, b = found["a"], found["b"]
    out = [f"A {_name(a)}  sha256 {a['sha256'][:16]}", f"B {_name(b)}  sha256 {b['sha256'][:16]}"]
    same = found["same_content"]
    out.append("The contents are the same." if same else "The contents differ.")
    for kind in OWN:
        out += _table(kind, found[kind])
    if found["inputs"]:
        out.append("inputs that differ:")
        for pair in found["inputs"][:5]:
            names = [pair["a"] or NOT_GIVEN, pair["b"] or NOT_GIVEN]
            out.append(f"    {pair['role']}: {names[0] if names[0] == names[1] else ' | '.join(names)}")
        if len(found["inputs"]) > 5:
            out.append(f"    and {len(found['inputs']) - 5} more")
    upstream = [cause for cause in found["causes"] if (cause["a"], cause["b"]) != (a["path"], b["path"])]
    if upstream:
        out.append("differences upstream, the first ones first:")
    for cause in upstream:
        also = f" and {len(cause['also'])} more" if cause["also"] else ""
        names = cause["a"] if cause["a"] == cause["b"] else f"{cause['a'] or NOT_GIVEN} | {cause['b'] or NOT_GIVEN}"
        out.append(f"  {names}{also}: {cause['reason']}")
        for kind in OWN:
            out += [f"  {line}" for line in _table(kind, cause[kind])]
    if not (found["inputs"] or any(found[kind] for kind in OWN)):
        out.append(
            "Settings, code, environment and inputs are the same."
            if same
            else "Settings, code, environment and inputs are the same: the job does not give the same bytes each time "
            "(a calculator's log with its date, say), or something differs that no record holds."
        )
    return out


def _name(side: dict) -> str:
    return side["path"] if side["study"] == "." else str(Path(side["study"]) / side["path"])


def _table(kind: str, rows: list[dict]) -> list[str]:
    return [f"{kind}:", *(f"    {r['key']}: {_value(r['a'])} | {_value(r['b'])}" for r in rows)] if rows else []


def _value(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:99]}…"


# --- one job against another ------------------------------------------------------------------------------------------


def _own(a: dict, b: dict) -> dict[str, list[dict]]:
    """What differs between two jobs themselves."""
    code = [{"key": "rule", "a": a["rule"], "b": b["rule"]}] if a["rule"] != b["rule"] else []
    files_a, files_b = a["code"].get("files", {}), b["code"].get("files", {})
    if files_a and files_b:
        code += _rows(files_a, files_b)
    elif a["params"].get("code") != b["params"].get("code"):
        code += [{"key": "digest", "a": a["params"].get("code"), "b": b["params"].get("code")}]
    code += _rows(
        {k: a["code"].get(k) for k in ("commit", "dirty")}, {k: b["code"].get(k) for k in ("commit", "dirty")}
    )
    return {
        "settings": _rows(_flat(settings(a)), _flat(settings(b))),
        "code": code,
        "environment": _rows(_environment(a), _environment(b)),
    }


def _environment(record: dict) -> dict:
    origin = computed(record)
    host = origin["host"]
    values = {name: package["version"] for name, package in origin["environment"]["packages"].items()}
    values |= {"Python": origin["environment"]["python"], "device": origin["device"], "machine": host.get("machine")}
    values |= {"system": host.get("system"), "threads": origin.get("threads"), "GPUs": origin.get("gpus") or None}
    return values


def _rows(a: dict, b: dict) -> list[dict]:
    return [
        {"key": key, "a": a.get(key, NOT_GIVEN), "b": b.get(key, NOT_GIVEN)}
        for key in sorted(a.keys() | b.keys())
        if a.get(key, NOT_GIVEN) != b.get(key, NOT_GIVEN)
    ]


def _flat(values, prefix: str = "") -> dict:
    """Nested mappings as one, keys joined by dots; lists of mappings by their number."""
    if isinstance(values, dict) and values:
        pairs = values.items()
    elif isinstance(values, list) and values and all(isinstance(value, dict) for value in values):
        pairs = ((str(number), value) for number, value in enumerate(values))
    else:
        return {prefix: values}
    out = {}
    for key, value in pairs:
        out |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return out


def _inputs(a: dict, b: dict) -> list[tuple[str, dict | None, dict | None]]:
    """Inputs of two jobs in pairs: of one role, the only ones or those of the same path.

    Tables of which each job took one row are left out: the row is a setting.
    """
    out = []
    for role in sorted({item["role"] for item in contents(a) + contents(b)}):
        if all(ROWS.get(role) in record["params"] for record in (a, b)):
            continue
        left = {item["path"]: item for item in contents(a) if item["role"] == role}
        right = {item["path"]: item for item in contents(b) if item["role"] == role}
        if len(left) == len(right) == 1:
            out.append((role, *left.values(), *right.values()))
            continue
        out += [(role, left.get(path), right.get(path)) for path in sorted(left.keys() | right.keys())]
    return out


def _written(study: Study, path: str) -> str:
    return next(output["sha256"] for output in study.maker(path)["outputs"] if output["path"] == path)


# --- upstream ---------------------------------------------------------------------------------------------------------


def _causes(study_a: Study, study_b: Study, path_a: str, path_b: str) -> list[dict]:
    """The first differences upstream of two results that differ, farthest first, equal ones folded into one."""
    found: dict[str, dict] = {}
    visited: dict[tuple[str, str], int] = {}

    def visit(a: str | None, b: str | None, digests: tuple[str | None, str | None], depth: int) -> bool:
        """Whether a cause was found here or above."""
        if digests[0] == digests[1]:
            return False
        if (a, b) in visited:
            return True
        visited[a, b] = depth
        record_a, record_b = study_a.makers.get(a), study_b.makers.get(b)
        shipped_a, shipped_b = (s.shipped(p) if p else None for s, p in ((study_a, a), (study_b, b)))
        nothing: dict[str, list[dict]] = {kind: [] for kind in OWN}
        if a is None or b is None:
            note(a, b, nothing, f"only {'A' if b is None else 'B'} was made from it", depth)
        elif record_a is None and record_b is None and shipped_a and shipped_b:
            note(a, b, _own(shipped_a, shipped_b), "shipped sources with different contents", depth)
        elif record_a is None or record_b is None:
            note(a, b, nothing, "sources with different contents", depth)
        else:
            own = _own(record_a, record_b)
            deeper = [
                visit(i and i["path"], j and j["path"], (i and i["sha256"], j and j["sha256"]), depth + 1)
                for _, i, j in _inputs(record_a, record_b)
            ]
            decisive = own["settings"] or [row for row in own["code"] if row["key"] not in STATE]
            if decisive or not any(deeper):
                kinds = " and ".join(kind for kind in OWN if own[kind])
                note(a, b, own, f"{record_a['rule']} differs in {kinds or 'nothing that is recorded'}", depth)
        return True

    def note(a: str | None, b: str | None, own: dict, reason: str, depth: int) -> None:
        key = json.dumps([reason, own], sort_keys=True, default=str)
        if key in found:
            found[key]["also"].append(a or b)
        else:
            found[key] = {"a": a, "b": b, **own, "reason": reason, "also": [], "depth": depth}

    visit(path_a, path_b, (_written(study_a, path_a), _written(study_b, path_b)), 0)
    return sorted(found.values(), key=lambda cause: (-cause["depth"], str(cause["a"])))
