"""A study's provenance in the W3C's model, PROV-DM: files are entities, jobs activities, code and software agents."""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from defraction.lineage.study import Study, computed, configuration, contents, settings
from defraction.lineage.trace import environment
from defraction.provenance import outside, spent, without_folders

FORMATS = {".json": "json", ".provn": "provn", ".ttl": "rdf"}
VOCABULARY = "urn:defraction:"


def write_prov(study: Study, target: Path, with_hosts: bool = True) -> None:
    """Write PROV-JSON (.json), PROV-N (.provn) or Turtle (.ttl).

    Raises:
        ValueError: another ending.
        ModuleNotFoundError: the package prov is not installed; says how to install it.
    """
    target = Path(target)
    if target.suffix not in FORMATS:
        raise ValueError(f"{target}: PROV is written as {', '.join(FORMATS)}")
    document = prov_document(study, with_hosts)
    options = {".json": {"indent": 1}, ".ttl": {"rdf_format": "turtle"}}.get(target.suffix, {})
    partial = target.with_name(f".{target.name}.tmp{os.getpid()}")
    partial.write_text(document.serialize(format=FORMATS[target.suffix], **options) + "\n")
    os.replace(partial, target)


def prov_document(study: Study, with_hosts: bool = True):
    """The provenance as a `prov.model.ProvDocument`.

    Entities carry path, bytes and SHA-256, activities rule, settings, start, end and cost, agents the digest of the
    code or Python, packages and device. Files outside the study are told by name and digest alone. Jobs of earlier
    studies behind shipped sources are told as those of this one; a file of theirs that is not here is `earlier/...`.
    """
    try:
        from prov.model import PROV, ProvDocument
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "W3C PROV needs the package prov: make setup installs it; elsewhere pip install 'prov[rdf]'"
        ) from None

    document = ProvDocument()
    own = document.add_namespace("defraction", VOCABULARY)
    files, jobs, software = (
        document.add_namespace(name, f"{VOCABULARY}{name}:") for name in ("file", "job", "software")
    )
    entities: dict[str, object] = {}
    agents: dict[str, object] = {}

    def entity(item: dict):
        name = item["path"]
        if outside(name):
            name = f"external/{item['sha256'][:12]}-{Path(name).name}"
        if name not in entities:
            facts = {PROV["label"]: name, own["sha256"]: item["sha256"], own["bytes"]: item["bytes"]}
            entities[name] = document.entity(files[quote(name)], facts)
        return entities[name]

    def agent(kind: str, text: str, facts: dict):
        name = f"{kind}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if name not in agents:
            label = {PROV["type"]: PROV["SoftwareAgent"], PROV["label"]: text}
            agents[name] = document.agent(software[name], {**label, **facts})
        return agents[name]

    for record in (*study.records, *study.earlier):
        origin = computed(record)
        host = origin["host"] if with_hosts else {k: v for k, v in origin["host"].items() if k != "name"}
        label = record["record"].removesuffix(".record.json")
        label = f"external/{Path(label).name}" if outside(label) else label
        facts = {own["rule"]: record["rule"], PROV["label"]: label}
        facts |= {own[unit]: float(spent(origin, unit)) for unit in ("cpu_seconds", "seconds")}
        facts |= {own["max_rss_mib"]: float(origin["max_rss_mib"]), own["device"]: origin["device"]}
        chosen = settings(record) if with_hosts else without_folders(settings(record))
        values = [f"{k}={json.dumps(v, ensure_ascii=False, sort_keys=True)}" for k, v in chosen.items()]
        pairs = [*facts.items(), *((own["setting"], value) for value in values)]
        if "cache" in record:
            pairs.append((own["cache"], record["cache"]["key"]))
        activity = document.activity(
            jobs[quote(f"{record['rule']}/{label}")],
            _time(origin["started"]),
            _time(origin["started"] + origin["seconds"]),
            pairs,
        )
        for item in (*contents(record), *configuration(record)):
            document.used(activity, entity(_here(record, item)), other_attributes={PROV["role"]: item["role"]})
        for item in record["outputs"]:
            made = entity(_here(record, item))
            document.wasGeneratedBy(made, activity, other_attributes={PROV["role"]: item["role"]})
        code = record["code"]
        commit = {own["commit"]: code["commit"]} if code.get("commit") else {}
        document.wasAssociatedWith(activity, agent("code", f"defraction, code {code['digest']}", commit))
        text = environment({"environment": origin["environment"], "host": host, "device": origin["device"]})
        document.wasAssociatedWith(activity, agent("environment", text, {}))
    return document


def _here(record: dict, item: dict) -> dict:
    """A file of a job as it is called in this study; of another study's job as it lies here, if it does."""
    if "here" not in record:
        return item
    elsewhere = f"earlier/{item['sha256'][:12]}-{Path(item['path']).name}"
    return {**item, "path": record["here"].get(item["sha256"], elsewhere)}


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)
