"""A study as a Workflow Run RO-Crate: its files with what made them, for archives and other programs.

The profile is Provenance Run Crate 0.5 on RO-Crate 1.1 (Leo et al. 2024, 10.1371/journal.pone.0309210): the workflow is
the main entity, a script is a tool, a rule a step, a record the run of a tool.
"""

import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from defraction.lineage.study import Study, computed, configuration, contents, settings
from defraction.lineage.trace import environment
from defraction.lineage.verify import lines, verify
from defraction.provenance import (
    ABSOLUTE,
    configuration_file,
    outside,
    sealed,
    segments_mark,
    sha256,
    spent,
    strip_host,
    without_folders,
)

logger = logging.getLogger(__name__)

METADATA = "ro-crate-metadata.json"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
WORKFLOW = "workflow/Snakefile"
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
README = "README.md"
MIT = "https://spdx.org/licenses/MIT"
CODE = (
    "Snakefile",
    "workflow/Snakefile",
    "workflow/rules/*.smk",
    "workflow/scripts/*.py",
    "workflow/scripts/defraction/**/*.py",
)
SETTING_UP = (
    ".snakemake-workflow-catalog.yml",
    "LICENSE",
    "Makefile",
    "pyproject.toml",
    "requirements*.txt",
    "resources/*.csv",
    "resources/paper/*",
    "tools/*",
    "workflow/envs/*",
    "workflow/report/*",
)
"""What the code needs beside itself: packages with their versions, tables that a plan reads, texts of the report."""
CHOSEN = ("config/*", "profiles/default/*")
"""What the user may have written for a run."""
LANGUAGES = {".py": "#python", ".smk": SNAKEMAKE, "": SNAKEMAKE}
FORMATS = {
    ".cif": "chemical/x-cif",
    ".csv": "text/csv",
    ".extxyz": "chemical/x-xyz",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".nc": "application/netcdf",
    ".onnx": "application/octet-stream",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".smk": "text/x-python",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}
USAGE = {"cpu_seconds": ("CPU time", "SEC"), "seconds": ("wall time", "SEC"), "max_rss_mib": ("peak memory", "E40")}
"""Cost of a job: name and UN/CEFACT code of the unit (second; E40 is the code of 2^20 bytes in Recommendation 20)."""


def write_crate(
    study: Study,
    target: Path,
    title: str,
    license_url: str | None = None,
    with_hosts: bool = True,
    advance: Callable[[int, int], None] | None = None,
) -> int:
    """Write a crate with all recorded files, their records and the code.

    Args:
        study: a study whose files are as they were recorded.
        target: a new folder or .zip file, or the study's own folder: then only the metadata is written, in place.
        title: name of the crate.
        license_url: licence of the results; None: that of the repository.
        with_hosts: whether names of hosts and folders outside the study are told; without them the calculators' logs,
            which begin with both, are left out too unless they were written without them.
        advance: called with (bytes copied, bytes in all).

    Returns:
        Number of files in the crate.

    Raises:
        ValueError: a file is not as recorded, or the target is there already.
    """
    verdict = verify(study)
    if verdict.damaged or verdict.outdated:
        raise ValueError("the study is not whole, so no crate is written:\n" + "\n".join(lines(verdict)))
    for fault in verdict.sources:
        logger.warning("%s: %s; the crate has it as it is now", fault.path, fault.text)
    for note in verdict.notes:
        if "(code)" in note:
            logger.warning("%s; the crate has it as it is now", note)
    if older := sum("configuration" not in record for record in study.records):
        logger.warning("the configuration of %d results was not recorded; the crate has config/ as it is now", older)
    if not (study.root / WORKFLOW).is_file():
        raise ValueError(f"{study.root / WORKFLOW}: not there; a crate needs the workflow that made the results")
    target = Path(target)
    in_place = target.is_dir() and target.resolve() == study.root.resolve()
    if not in_place and target.exists():
        raise ValueError(f"{target}: there already; name a new folder or .zip file, or the study's own folder")
    if in_place and not with_hosts:
        raise ValueError("without names of hosts the records are rewritten; name a new folder or .zip file")

    crate = _Crate(study, title, license_url, with_hosts)
    graph = [_single(entity) for entity in crate.graph()]
    text = json.dumps({"@context": CONTEXT, "@graph": graph}, indent=1, ensure_ascii=False) + "\n"
    if in_place:
        (target / METADATA).write_text(text)
        return len(crate.files)
    partial = target.with_name(f".{target.name}.tmp{os.getpid()}")
    sizes = {name: source.stat().st_size for name, source in crate.files.items() if isinstance(source, Path)}
    whole, done = sum(sizes.values()), 0
    try:
        with _folder(partial) if target.suffix != ".zip" else _archive(partial) as put:
            put(METADATA, text)
            for name, source in crate.files.items():
                put(name, source)
                done += sizes.get(name, 0)
                if advance is not None:
                    advance(done, whole)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
    return len(crate.files)


class _folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Callable[[str, Path | str], None]:
        self.path.mkdir(parents=True)
        return self.put

    def __exit__(self, *_) -> None:
        pass

    def put(self, name: str, source: Path | str) -> None:
        goal = self.path / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, str):
            goal.write_text(source)
        else:
            shutil.copy2(source, goal)  # with its time, which tells Snakemake that nothing is to be done


class _archive:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def __enter__(self) -> Callable[[str, Path | str], None]:
        return self.put

    def __exit__(self, *_) -> None:
        self.file.close()

    def put(self, name: str, source: Path | str) -> None:
        if isinstance(source, str):
            self.file.writestr(name, source)
        else:
            self.file.write(source, name)


class _Crate:
    """The graph of a crate, and `files`: name in the crate and the file, or its text, that goes there."""

    def __init__(self, study: Study, title: str, license_url: str | None, with_hosts: bool) -> None:
        self.study, self.title, self.with_hosts = study, title, with_hosts
        self.files: dict[str, Path | str] = {}
        self.entities: dict[str, dict] = {}
        self.left_out: set[str] = set()
        self.bare: dict[str, tuple[dict, str]] = {}
        if license_url is None and (study.root / "LICENSE").is_file():
            self.license = self._file("LICENSE", name="licence of the repository")
        else:
            self.license = self._add(
                {"@id": license_url or MIT, "@type": "CreativeWork", "name": "licence of the results"}
            )
        if not with_hosts:
            self.left_out = {
                output["path"]
                for record in study.records
                if "name" in computed(record)["host"]
                for output in record["outputs"]
                if output["role"] == "log"
            }
            self.left_out |= {
                record["here"][output["sha256"]]
                for record in study.earlier
                if "name" in computed(record)["host"]
                for output in record["outputs"]
                if output["role"] == "log" and output["sha256"] in record["here"]
            }

    def graph(self) -> list[dict]:
        """All entities, the metadata file and the root first."""
        study = self.study
        for record in study.records:
            self._job(record)
            mark = segments_mark(record["record"])
            if (study.root / mark).is_file():
                self._file(mark.as_posix(), description="says to a plan that the result was made in several segments")
        steps = self._steps()
        for record in study.earlier:
            self._job(record)
        for patterns, add in ((CODE, self._code), (SETTING_UP, self._file), (CHOSEN, self._chosen)):
            for path in sorted(path for pattern in patterns for path in study.root.glob(pattern) if path.is_file()):
                add(path.relative_to(study.root).as_posix())
        for path in self._named():
            self._file(path)
        if (study.root / README).is_file():
            self._file(README, about={"@id": "./"}, name="how the workflow is run")
        self._workflow(steps)
        started = min(record["started"] for record in study.records)
        ended = max(record["started"] + record["seconds"] for record in study.records)
        self._run(started, ended)
        actions = [_ref(entity) for entity in self.entities.values() if entity["@type"] == "CreateAction"]
        contextual = list(self.entities.values())
        head = {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": [
                {"@id": "https://w3id.org/ro/crate/1.1"},
                {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"},
            ],
        }
        root = {
            "@id": "./",
            "@type": "Dataset",
            "name": self.title,
            "description": "Electron diffraction patterns of crystals with defects, the networks that were trained on "
            "patterns of perfect crystals, and the accuracy that each defect costs them; with the record of every job.",
            "datePublished": _time(ended),
            "license": self.license,
            "conformsTo": [{"@id": profile} for profile in PROFILES],
            "mainEntity": {"@id": WORKFLOW},
            "mentions": actions,
            "hasPart": [{"@id": quote(name)} for name in self.files],
        }
        profiles = [
            {"@id": profile, "@type": "CreativeWork", "name": name, "version": version}
            for profile, (name, version) in PROFILES.items()
        ]
        return [head, root, *profiles, *contextual]

    def _add(self, entity: dict) -> dict:
        """Add an entity once; return a reference to it."""
        return _ref(self.entities.setdefault(entity["@id"], entity))

    def _file(self, path: str, digest: str | None = None, **properties) -> dict | None:
        """A file as data entity; None if it is left out. Files outside the study go to `external/`."""
        if path in self.left_out:
            return None
        source = self.study.root / path
        name = self._name(path, digest)
        key = quote(name)
        if key not in self.entities:
            self.files[name] = source
            entity = {
                "@id": key,
                "@type": "File",
                "name": source.name,
                "contentSize": str(source.stat().st_size),
                "sha256": sha256(source) if digest is None else digest,
                "encodingFormat": FORMATS.get(source.suffix, "application/octet-stream"),
            }
            self.entities[key] = entity
        self.entities[key].update(properties)
        return {"@id": key}

    def _name(self, path: str, digest: str | None = None) -> str:
        """A file's name in the crate: its path in the study, or `external/` with its digest."""
        if outside(path):
            source = self.study.root / path
            return f"external/{(digest or sha256(source))[:12]}-{source.name}"
        return path

    def _text(self, path: str, text: str, **properties) -> dict:
        """A file that is written into the crate, as data entity."""
        self.files[path] = text
        entity = {
            "@id": quote(path),
            "@type": "File",
            "name": Path(path).name,
            "contentSize": str(len(text.encode())),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "encodingFormat": FORMATS[Path(path).suffix],
        }
        return self._add(entity | properties)

    def _chosen(self, path: str) -> None:
        """A file of the user's choices; without hosts, one that names folders outside the study is left out."""
        text = (self.study.root / path).read_text(errors="replace")
        if self.with_hosts or not (ABSOLUTE.search(text) or "../" in text):
            self._file(path)
        else:
            logger.warning("%s names folders outside the study: left out", path)

    def _named(self) -> list[str]:
        """Files of the study that configurations name (a table of materials, a folder of CIFs, a potential).

        A plan needs them, also where no job has read them yet.
        """
        found: set[Path] = set()
        todo = [json.loads((self.study.root / path).read_text()) for path in self.study.configurations]
        while todo:
            value = todo.pop()
            if isinstance(value, dict | list):
                todo += value.values() if isinstance(value, dict) else value
            elif isinstance(value, str) and value and not outside(value):
                path = self.study.root / value
                inside = {file for file in path.glob("*") if file.suffix.lower() == ".cif"}
                found |= {path} if path.is_file() else inside
        return sorted(path.relative_to(self.study.root).as_posix() for path in found)

    def _configuration(self, item: dict) -> dict:
        """The configuration of a run; without hosts, paths in it that lead out of the study are cut to their names."""
        about = {
            "name": "configuration of the run",
            "description": f"every setting, defaults too: snakemake --configfile {item['path']}",
        }
        if self.with_hosts:
            return self._file(item["path"], item["sha256"], **about)
        bare, text = self._stripped(item)
        about["description"] = f"every setting, defaults too, without folders outside the study; file {bare['path']}"
        return self._text(bare["path"], text, **about)

    def _stripped(self, item: dict) -> tuple[dict, str]:
        """`configuration_file` of a configuration without folders outside the study."""
        if item["path"] not in self.bare:
            config = json.loads((self.study.root / item["path"]).read_text())
            self.bare[item["path"]] = configuration_file(without_folders(config))
        return self.bare[item["path"]]

    def _code(self, path: str) -> dict | None:
        if not (self.study.root / path).is_file():
            return None
        return self._file(
            path,
            **{"@type": ["File", "SoftwareSourceCode"]},
            name=self._name(path),
            programmingLanguage={"@id": LANGUAGES[Path(path).suffix]},
            version=self._commit(),
        )

    def _commit(self) -> str:
        commits = {record["code"].get("commit") for record in self.study.records} - {None}
        return sorted(commits)[-1] if commits else metadata.version("defraction")

    def _parameter(self, rule: str, way: str, name: str, kind: str) -> dict:
        return self._add(
            {
                "@id": _id(f"#parameter/{rule}/{way}/{name}"),
                "@type": "FormalParameter",
                "name": name,
                "additionalType": kind,
                "conformsTo": {"@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"},
            }
        )

    def _tool(self, record: dict) -> dict:
        """The script of a record's rule as a tool, with what it was seen to take and give.

        The script of an earlier study's job need not be this one: there the tool is the rule with its code's digest.
        """
        scripts = [
            i["path"] for i in record["inputs"] if i["role"] == "code" and Path(i["path"]).parent.name == "scripts"
        ]
        if "here" in record:
            scripts = []
        if scripts and (script := self._code(scripts[0])) is not None:
            tool = self.entities[script["@id"]]
        else:
            number = f"-{record['code']['digest']}" if "here" in record else ""
            name = _id(f"#tool/{record['rule']}{number}")
            tool = self.entities[self._add({"@id": name, "@type": "SoftwareApplication"})["@id"]]
            tool |= {"name": record["rule"], "softwareVersion": str(record["code"]["digest"])}
        for name, package in sorted(computed(record)["environment"]["packages"].items()):
            software = self._add(
                {
                    "@id": f"https://pypi.org/project/{name}/{package['version']}/",
                    "@type": "SoftwareApplication",
                    "name": name,
                    "softwareVersion": package["version"],
                    "url": f"https://pypi.org/project/{name}/",
                }
            )
            _append(tool, "softwareRequirements", software)
        return tool

    def _job(self, record: dict) -> None:
        rule, origin = record["rule"], computed(record)
        tool = self._tool(record)
        taken, given = [], []
        shipped = "here" in record
        for way, items, files in (("input", contents(record), taken), ("output", record["outputs"], given)):
            for item in items:
                parameter = self._parameter(rule, way, item["role"], "File")
                _append(tool, way, parameter)
                path = record["here"].get(item["sha256"]) if shipped else item["path"]
                if path is not None and (file := self._file(path, item["sha256"])) is not None:
                    _append(self.entities[file["@id"]], "exampleOfWork", parameter)
                    files.append(file)
        if not shipped:
            for item in configuration(record):
                parameter = self._parameter(rule, "input", item["role"], "File")
                _append(tool, "input", parameter)
                file = self._configuration(item)
                _append(self.entities[file["@id"]], "exampleOfWork", parameter)
                taken.append(file)
        chosen = settings(record) if self.with_hosts else without_folders(settings(record))
        for key, value in chosen.items():
            parameter = self._parameter(rule, "setting", key, "Text")
            _append(tool, "input", parameter)
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
            name = hashlib.sha256(f"{rule}\0{key}\0{text}".encode()).hexdigest()[:16]
            taken.append(
                self._add(
                    {
                        "@id": f"#setting/{name}",
                        "@type": "PropertyValue",
                        "name": key,
                        "value": text,
                        "exampleOfWork": parameter,
                    }
                )
            )
        notes = [
            environment({"environment": origin["environment"], "host": self._host(origin), "device": origin["device"]})
        ]
        notes.append(f"code {record['code']['digest']}")
        if "cache" in record:
            notes.append("computed in another study and taken from a cache by the digest of its content")
        if shipped:
            notes.append("computed in an earlier study and shipped with this record")
            absent = [
                f"{i['role']} (sha256 {i['sha256']})" for i in contents(record) if i["sha256"] not in record["here"]
            ]
            notes += [f"it read a {text}, which is not here" for text in absent]
        name = record["record"].removesuffix(".record.json").removeprefix("results/")
        name = f"external/{Path(name).name}" if outside(name) else name
        action = {
            "@id": _id(f"#job/{rule}/{name}"),
            "@type": "CreateAction",
            "name": f"{rule} {name}",
            "description": "; ".join(notes),
            "instrument": _ref(tool),
            "object": taken,
            "result": given,
            "startTime": _time(origin["started"]),
            "endTime": _time(origin["started"] + origin["seconds"]),
            "actionStatus": "http://schema.org/CompletedActionStatus",
            "resourceUsage": [self._usage(origin, key) for key in USAGE],
        }
        self._add(action)
        self._record(record, action)

    def _host(self, origin: dict) -> dict:
        return origin["host"] if self.with_hosts else {k: v for k, v in origin["host"].items() if k != "name"}

    def _usage(self, origin: dict, key: str) -> dict:
        value = origin[key] if key == "max_rss_mib" else round(spent(origin, key), 3)
        name, unit = USAGE[key]
        return self._add(
            {
                "@id": f"#usage/{key}/{value}",
                "@type": "PropertyValue",
                "name": name,
                "propertyID": f"urn:defraction:{key}",
                "unitCode": f"https://qudt.org/vocab/unit/{unit}"
                if unit == "SEC"
                else "https://qudt.org/vocab/unit/MebiBYTE",
                "value": str(value),
            }
        )

    def _record(self, record: dict, action: dict) -> None:
        """The record itself as a file about its action."""
        path = record["record"]
        about = {"about": _ref(action), "description": "record of the job, as it was written"}
        if self.with_hosts:
            self._file(path, **about)
            return
        bare = json.loads(json.dumps({key: value for key, value in record.items() if key not in ("record", "here")}))
        strip_host(bare)
        for job in (bare, computed(bare)):
            job["params"], job["inputs"] = without_folders(job["params"]), without_folders(job["inputs"])
        for item in configuration(record) if "here" not in record else ():
            bare["configuration"] = self._stripped(item)[0]
        about["description"] = "record of the job without names of hosts"
        self._text(self._name(path), sealed(bare), **about)

    def _steps(self) -> list[dict]:
        """The rules as steps, in the order of their first jobs, each with the action that controlled its jobs."""
        first: dict[str, float] = {}
        for record in self.study.records:
            first[record["rule"]] = min(first.get(record["rule"], float("inf")), record["started"])
        jobs: dict[str, list[dict]] = {}
        for entity in list(self.entities.values()):
            if entity["@type"] == "CreateAction":
                jobs.setdefault(entity["name"].split()[0], []).append(entity)
        steps = []
        for position, rule in enumerate(sorted(first, key=lambda rule: (first[rule], rule)), start=1):
            step = self._add(
                {
                    "@id": f"{WORKFLOW}#{rule}",
                    "@type": "HowToStep",
                    "name": rule,
                    "position": str(position),
                    "workExample": jobs[rule][0]["instrument"],
                }
            )
            self._add(
                {
                    "@id": f"#control/{rule}",
                    "@type": "ControlAction",
                    "name": f"jobs of the rule {rule}",
                    "instrument": step,
                    "object": [_ref(job) for job in jobs[rule]],
                    "actionStatus": "http://schema.org/CompletedActionStatus",
                }
            )
            steps.append(step)
        return steps

    def _workflow(self, steps: list[dict]) -> None:
        self._code(WORKFLOW)
        tools: dict[str, dict] = {}
        for step in steps:
            tool = self.entities[step["@id"]]["workExample"]
            tools[tool["@id"]] = tool
        inputs = [self._parameter("workflow", "input", self._name(path), "File") for path in self._sources()]
        outputs = [self._parameter("workflow", "output", path, "File") for path in self._ends()]
        for path, parameter in zip((*self._sources(), *self._ends()), (*inputs, *outputs), strict=True):
            if (file := self._file(path)) is not None:
                _append(self.entities[file["@id"]], "exampleOfWork", parameter)
        if self.study.configurations:
            inputs.append(self._parameter("workflow", "input", "configuration", "File"))
        for item in self.study.configurations.values():
            _append(self.entities[self._configuration(item)["@id"]], "exampleOfWork", inputs[-1])
        self.entities[WORKFLOW] |= {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "defraction",
            "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
            "license": self._add({"@id": MIT, "@type": "CreativeWork", "name": "MIT License"}),
            "input": inputs,
            "output": outputs,
            "step": steps,
            "hasPart": list(tools.values()),
        }
        language = {"@id": SNAKEMAKE, "@type": "ComputerLanguage", "name": "Snakemake"}
        self._add(
            language
            | {"identifier": "https://doi.org/10.1093/bioinformatics/bts480", "url": "https://snakemake.github.io"}
        )
        self._add({"@id": "#python", "@type": "ComputerLanguage", "name": "Python", "url": "https://www.python.org"})

    def _run(self, started: float, ended: float) -> None:
        """The run of the whole workflow, and the engine that organised it."""
        run = {
            "@id": "#run",
            "@type": "CreateAction",
            "name": "run of the workflow",
            "description": "All jobs behind the present results, of one run of Snakemake or several.",
            "instrument": {"@id": WORKFLOW},
            "object": [
                *({"@id": f["@id"]} for path in self._sources() if (f := self._file(path)) is not None),
                *(self._configuration(item) for item in self.study.configurations.values()),
            ],
            "result": [{"@id": f["@id"]} for path in self._ends() if (f := self._file(path)) is not None],
            "startTime": _time(started),
            "endTime": _time(ended),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        }
        self._add(run)
        engine = {
            "@id": "https://snakemake.github.io",
            "@type": "SoftwareApplication",
            "name": "Snakemake",
            "softwareVersion": metadata.version("snakemake"),
            "url": "https://snakemake.github.io",
        }
        self._add(
            {
                "@id": "#organize",
                "@type": "OrganizeAction",
                "name": "Snakemake runs the rules",
                "instrument": self._add(engine),
                "object": [_ref(e) for e in self.entities.values() if e["@type"] == "ControlAction"],
                "result": {"@id": "#run"},
                "startTime": _time(started),
                "endTime": _time(ended),
                "actionStatus": "http://schema.org/CompletedActionStatus",
            }
        )

    def _sources(self) -> list[str]:
        """Files that jobs read and none made."""
        return sorted(path for path in self.study.readers if path not in self.study.makers)

    def _ends(self) -> list[str]:
        """Results that no job read, logs left out."""
        outputs = [o for record in self.study.records for o in record["outputs"]]
        return sorted(o["path"] for o in outputs if o["path"] not in self.study.readers and o["role"] != "log")


def _ref(entity: dict) -> dict:
    return {"@id": entity["@id"]}


def _id(text: str) -> str:
    """An id within the crate, with characters that no URI has escaped."""
    return quote(text, safe="/#")


def _single(entity: dict) -> dict:
    """An entity with lists of one value as that value, as compact JSON-LD has them."""
    return {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in entity.items()}


def _append(entity: dict, key: str, reference: dict) -> None:
    """Add a reference to a list of an entity, once."""
    values = entity.setdefault(key, [])
    if reference not in values:
        values.append(reference)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(round(seconds), UTC).isoformat()
