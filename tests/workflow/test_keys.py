"""Every key of the configuration: exactly those jobs take it that have to run again when it changes.

What follows from a changed job is Snakemake's part (test_reruns.py). Here is whose own params or input files change,
for each leaf of the schema: a new key without a row fails. Params and inputs are those of the rules (parameters.py).

    python tests/workflow/test_keys.py      prints what each key changes now
"""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from ase.build import bulk
from ase.io import write
from finished import MATERIALS, copy_workflow
from pydantic import BaseModel

from defraction import config
from defraction.first_principles.settings import settings_for
from defraction.first_principles.tables import PRESETS
from defraction.hosts import Host, read_hosts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OTHER_TABLE, FOLDER = "resources/other.csv", "resources/cifs"
BASE = {
    "materials": {"table": MATERIALS},
    "specimen": {"repeat": [12, 10, 8], "supercell_repeat": [6, 6, 6]},
    "diffraction": {"zone_axes": [[0, 0, 1], [0, 1, 1]], "voltages": [200], "camera_lengths": [0.8], "pixels": 32},
    "first_principles": {"preset": "smoke", "source": "compute"},
    "conditions": [
        {"kind": "vacancy", "host": "Al", "supercell": [2, 1, 1], "count": 2},
        {"kind": "thermal", "host": "Al", "supercell": [2, 1, 1], "temperatures": [300]},
        {"kind": "random_displacements", "host": "Al", "fractions": [0.03]},
        {"kind": "strain", "host": "Cu", "mode": "stress", "component": "xx", "values": [1], "elastic": "gpaw"},
        {"kind": "dislocation", "host": "Al", "count": 2, "spacing": 20, "size": [48, 32], "line_repeat": 3},
        {"kind": "twin", "host": "Al", "size": [24, 30, 20]},
    ],
    "pattern_sets": {"fine": {}},
    "models": [{"name": "main", "seeds": [1]}, {"name": "other", "seeds": [1], "pattern_set": "fine"}],
    "runtime": {"walltime": 3600.0},
}
ENTRIES: dict[str, dict] = {
    "pristine": {},
    "strain": {"component": "xx", "values": [0.02]},
    "vacancy": {"supercell": [2, 1, 1]},
    "substitution": {"supercell": [2, 1, 1], "solute": "Si"},
    "interstitial": {"supercell": [2, 1, 1], "solute": "C"},
    "point_defects": {
        "supercell": [2, 2, 1],
        "defects": [{"kind": "vacancy"}, {"kind": "substitution", "solute": "Si"}],
    },
    "random_defects": {"concentrations": [0.1]},
    "random_displacements": {"fractions": [0.03]},
    "thermal": {"supercell": [2, 1, 1], "temperatures": [300]},
    "dislocation": {"count": 2, "spacing": 20, "size": [48, 32], "line_repeat": 3},
    "twin": {"size": [24, 30, 20]},
}
"""One entry of `conditions` of each kind, of Al."""


@dataclass
class Row:
    """A new value of a key, and the jobs that it changes: of one rule (`train`), of one rule for one subject
    (`train other-seed1`), all jobs of a new subject (`+other-seed2`), or one gone (`-other-seed1`). `given` is put into
    the configuration, or into the entry of `conditions`, before the change, `along` into that entry with it."""

    value: Any
    jobs: set[str]
    given: dict = field(default_factory=dict)
    along: dict = field(default_factory=dict)


ROWS: dict[str, Row] = {}


def changed(before: dict, after: dict) -> set[str]:
    """The jobs that a change of the configuration changes, in the words of a row; crystals by that word, digests in
    names of conditions as #."""
    if "error" in after:
        return {"refused"}
    words = set()

    def subjects(jobs):
        return {word for job in jobs for word in job.split()[1:]}

    def name(word, jobs):
        word = "crystal" if f"clean_structure {word}" in jobs else word
        return re.sub(r"-(at)?[0-9a-f]{6}(?=-)", r"-\1#", word)

    new = subjects(after) - subjects(before)
    words |= {f"+{name(word, after)}" for word in new}
    words |= {f"-{name(word, before)}" for word in subjects(before) - subjects(after)}
    by_rule = defaultdict(list)
    for job in after:
        by_rule[job.split()[0]].append(job.split()[1:])
    by_rule.pop("all")  # has the list of figures
    for rule, jobs in by_rule.items():
        old = [job for job in jobs if not new & set(job)]
        differing = [job for job in old if before.get(" ".join([rule, *job])) != after[" ".join([rule, *job])]]
        if not differing:
            continue
        if rule.startswith("figure_") or rule == "report":
            words.add("figures")
        elif rule in ("evaluate", "summarise", "displacements"):
            words.add("summary")
        elif len(differing) == len(old):
            words.add(rule)
        else:  # the fewest subjects that tell which jobs differ
            ways = [{job[i] for job in differing} for i in range(len(old[0]))]
            whole = [way for i, way in enumerate(ways) if all(job in differing for job in old if job[i] in way)]
            words |= {f"{rule} {name(word, after)}" for word in min(whole, key=len)}
    return words


def models_of(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_of(part)]


def leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Keys that hold values, those of sections below too; of conditions under the name of their kind."""
    found = []
    for name, about in model.model_fields.items():
        if name == "conditions":
            for kind, condition in config.KINDS.items():
                found += [key for key in leaves(condition, f"{kind}.") if key != f"{kind}.kind"]
            continue
        annotation = about.annotation
        for section in models_of(annotation):
            found += leaves(section, f"{prefix}{name}.")
        parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
        if any(part is not NoneType and not models_of(part) for part in parts):
            found.append(f"{prefix}{name}")
    return list(dict.fromkeys(found))


def row(key: str, value: Any, *jobs: str | set[str], given: dict | None = None, along: dict | None = None) -> None:
    sets = (job if isinstance(job, set) else {job} for job in jobs)
    ROWS[key] = Row(value, set().union(*sets), given or {}, along or {})


# Everything

ALL_BUT_MODELS = {"clean_structure", "structure_block", "aimd", "aimd_segment", "split", "unknown_patterns", "openset"}
PLACED = "al-vacancy-x2-2x1x1"  # two vacancies at random sites
row("seed", 5, ALL_BUT_MODELS, "conditions_table", "summary", f"relax {PLACED}", f"relax_segment {PLACED}",
    f"structure_point {PLACED}", f"structure_point {PLACED}-unrelaxed")  # fmt: skip
row("reductions", ["another text"], "summary", "figures")

# Crystals: their list is that of all that trains

LIST = {"split", "train", "predict_clean", "unknown_patterns", "openset"}
row("materials.table", OTHER_TABLE, "clean_structure")  # the same crystals from another file
row("materials.folder", FOLDER, "+crystal", LIST)
row("materials.materials_project", ["mp-1"], "+crystal", LIST)
row("materials.space_groups", [221, 225, 227, 229], "-crystal", LIST, "labels")
row("materials.exclude", ["Fe-229"], "-crystal", LIST)
row("materials.max_per_group", 3, "-crystal", LIST)
row("materials.drawn", 1, "+crystal", LIST)
row("materials.specimens", 1, "clean_structure")
row("specimen.repeat", [12, 10, 6], "clean_structure", "structure_strain", "structure_block", "conditions_table",
    "unknown_patterns")  # fmt: skip
row("specimen.supercell_repeat", [6, 6, 4], "structure_point", "structure_thermal", "conditions_table")

# Patterns

PATTERNS = {"simulate", "simulate_clean", "simulate_set", "simulate_set_clean", "simulate_shown", "unknown_patterns"}
SET = {"simulate_set", "simulate_set_clean", "simulate_shown pattern_sets/fine", "unknown_patterns other-seed1"}
DIFFRACTION = {
    "method": "direct", "model": "article", "scattering_factors": "lobato", "zone_axes": [[0, 0, 1], [1, 1, 1]],
    "voltages": [300], "camera_lengths": [0.7], "detector_width": 40.0, "pixels": 40, "response_sigma": 1.5,
    "tilt": [1.0, 0.0], "rotation": 5.0, "convergence": 0.5, "shape": "sphere", "debye_waller": {"Al": 0.5},
    "average_snapshots": True,
}  # fmt: skip
# Debye-Waller factors and molecular dynamics exclude each other.
AT_REST = {"conditions": [entry for entry in BASE["conditions"] if entry["kind"] != "thermal"]}
for name, value in DIFFRACTION.items():
    also = {"model": {"models_table"}, "pixels": {"models_table", "summary"}, "zone_axes": {"labels", "summary"}}
    given = AT_REST if name == "debye_waller" else {}
    row(f"diffraction.{name}", value, PATTERNS, "figures", also.get(name, set()), given=given)
    figures = {"figures"} if name == "pixels" else set()  # that of resolutions
    row(f"pattern_sets.{name}", value, SET, also.get(name, set()), figures, given=given)
row("pattern_sets.zone_axes", [[1, 1, 1]], "refused")

# First principles

row("first_principles.source", "library")  # which is empty here
row("first_principles.preset", "laptop", "lattice", "relax", "relax_segment", "aimd", "aimd_segment", "elastic")
row("first_principles.overrides", {"relax": {"fmax": 0.2}}, "relax", "relax_segment")

# Learning: the first model is the headline, whose settings the report shows

LEARNING = {
    "architecture": "resnet18", "display.beam_stop": 3.0, "display.decades": 4.0, "split.by": "image",
    "split.held_out": 0.4, "split.hosts": "held_out", "split.validation": 0.2, "split.drawn": False,
    "augmentation.rotation": 10.0,
    "augmentation.shift": 2.0, "augmentation.scale": 0.1, "augmentation.mirror": True, "epochs": 4, "batch_size": 8,
    "learning_rate": 0.01, "schedule": "cosine", "warmup": 0.1, "weight_decay": 0.01, "label_smoothing": 0.0,
    "precision": "fp32", "monitor": 10, "keep": "best", "early_stop": 2, "specimens": "block",
}  # fmt: skip
CHOSEN = {"learning": {"keep": "best"}}  # only then a part is for validation
for name, value in LEARNING.items():
    rules = (
        {"split"} if name.startswith("split.") else {"train", "split"} if name in ("keep", "early_stop") else {"train"}
    )
    also = {"models_table"} if name in ("architecture", "split.by", "split.hosts") else set()
    given = CHOSEN if name == "split.validation" else {}
    row(f"learning.{name}", value, rules, also, {"figures"} if "train" in rules else set(), given=given)
    row(f"models.{name}", value, {f"{rule} other-seed1" for rule in rules}, also, given=given)
row("models.name", "another", "-other-seed1", "+another-seed1", "models_table", "summary", "figures")
row("models.seeds", [1, 2], "+other-seed2", "models_table", "summary", "figures")
OTHERS = ("train", "predict", "predict_clean", "predict_shown", "openset")
row("models.pattern_set", "main", {f"{rule} other-seed1" for rule in OTHERS}, "models_table", "summary")

# Evaluation, runtime, presentation

row("evaluation.rotated_copies", 2, "predict", "predict_clean", "predict_shown")
for name, value in {"ensemble_sizes": [1, 2], "draws": 10, "calibration_bins": 5}.items():
    row(f"evaluation.{name}", value, "summary")
row("evaluation.confidence", 0.9, "summary", "figures")
RUNTIME = {
    "device": "cpu", "memory": 1.0, "training_threads": 1, "training_processes": 2, "deterministic": False,
    "gpaw_ranks": 2, "gpaw_gpu": True, "mpi_launcher": "srun", "walltime": 7200.0, "cache": "cache",
    "record_host": False,
}  # fmt: skip
for name, value in RUNTIME.items():
    row(f"runtime.{name}", value)
row("runtime.segments", 2, "relax", "aimd")  # which wait for those before them, if nothing is made yet
row("presentation.colour", "#123456", "figures")
row("presentation.pattern_decades", 4.0, "figures")

# Conditions: a new parameter is a new condition, which the list of all follows; what is not in its id changes it

NEW = {"conditions_table", "summary", "figures"}


def entry(key: str, value: Any, old: str = "", new: str = "", *jobs: str, **more: dict) -> None:
    """A key of an entry of `conditions`; `old` and `new`: ids, without the host's, of conditions gone and new."""
    words = {f"-al-{name}" for name in old.split()} | {f"+al-{name}" for name in new.split()}
    row(key, value, words, set(jobs), NEW if new else {"conditions_table"}, **more)


IDS = {
    "pristine": "pristine", "strain": "pristine strain-xx+2pct", "random_defects": "pristine random-vacancy-10pct",
    "random_displacements": "pristine displaced-gaussian-3pct", "thermal": "perfect-2x1x1 thermal-300K-2x1x1",
    "dislocation": "dislocation-edge-2 dislocation-edge-2-control", "twin": "twin twin-control",
}  # fmt: skip
POINT = {
    "vacancy": "vacancy", "substitution": "substitution-si", "interstitial": "interstitial-c-tetrahedral",
    "point_defects": "defects-vacancy-si-#",
}  # fmt: skip


def relaxed(name: str, cells: str = "2x1x1", perfect: bool = True) -> str:
    """Ids of a relaxed defect, at ideal positions too, with the perfect cell."""
    return f"{name}-{cells} {name}-{cells}-unrelaxed" + (f" perfect-{cells}" if perfect else "")


for kind, name in POINT.items():
    cells = "2x2x1" if kind == "point_defects" else "2x1x1"
    IDS[kind] = relaxed(name, cells)
    only = relaxed(name, cells, perfect=False)
    entry(f"{kind}.supercell", [2, 2, 2], relaxed(name, cells), relaxed(name, "2x2x2"))
    laptop = f"{name}-{cells}-laptop {name}-{cells}-laptop-unrelaxed perfect-{cells}-laptop"
    entry(f"{kind}.preset", "laptop", relaxed(name, cells), laptop)
    entry(f"{kind}.unrelaxed", False, f"{name}-{cells}-unrelaxed", "", "summary")
    entry(f"{kind}.cell", "relaxed", only, f"{name}-{cells}-cell")
    changes = [f"structure_point al-{i}" for i in only.split()] + [
        f"{r} al-{name}-{cells}" for r in ("relax", "relax_segment")
    ]
    entry(f"{kind}.minimum_separation", 2.0, "", "", *changes)
    if kind != "point_defects":
        entry(f"{kind}.count", 2, only, relaxed(f"{name}-x2", perfect=False))
        entry(f"{kind}.positions", [[0.5, 0.5, 0.0]], only, relaxed(f"{name}-at#", perfect=False))
for kind, ids in IDS.items():
    words = {f"-al-{i}" for i in ids.split()} | {f"+cu-{i}" for i in ids.split()}
    row(f"{kind}.host", "Cu", words, "-Al", "+Cu", "split", NEW)  # the host's crystal is on one side of the split


def tensor(name: str, values: dict) -> str:
    """Id of a strain that is given by components, those that are not zero in the order of the schema."""
    unit = "GPa" if name == "stress" else ""
    parts = [f"{key}{values[key]:+g}" for key in config.Tensor.model_fields if values.get(key)]
    return f"strain-{name}-{'-'.join(parts)}{unit}"


for name, values in {"stress": {"xx": 1.0, "xy": 0.5}, "tensor": {"xx": 0.01, "xy": 0.004}}.items():
    for component in config.Tensor.model_fields:
        changes = values | {component: 0.7 * values["xx"]}
        entry(f"strain.{name}.{component}", changes[component], tensor(name, values), tensor(name, changes),
              given={"mode": name, "component": None, "values": [1.0], name: values})  # fmt: skip
entry("strain.mode", "stress", "strain-xx+2pct", "strain-stress-xx+0.02GPa")
entry("strain.component", "yy", "strain-xx+2pct", "strain-yy+2pct")
entry("strain.plane", [1, 1, 1], "strain-biaxial-001+2pct", "strain-biaxial-111+2pct",
      given={"mode": "biaxial", "component": None})  # fmt: skip
SWEEP = {"values": {"start": 0.01, "stop": 0.03, "step": 0.01}}  # of which pictures show the last
entry("strain.values", [0.03], "strain-xx+2pct", "strain-xx+3pct")
entry("strain.values.start", 0.02, "strain-xx+1pct", "", "summary", given=SWEEP)
entry("strain.values.stop", 0.02, "strain-xx+3pct", "", "summary", "figures", given=SWEEP)
entry("strain.values.step", 0.02, "strain-xx+2pct", "", "summary", "figures", given=SWEEP)
GPAW = {"mode": "biaxial", "component": None, "elastic": "gpaw"}
FILM = "strain-biaxial-001+2pct"
entry("strain.elastic", "gpaw", FILM, f"{FILM}-gpaw", given={**GPAW, "elastic": "table"})
entry("strain.preset", "laptop", f"{FILM}-gpaw", f"{FILM}-gpaw-laptop", given=GPAW)
for kind, name in POINT.items():
    if kind in ("substitution", "interstitial"):
        only, other = relaxed(name, perfect=False), name.replace("-si", "-cu").replace("-c-", "-n-")
        entry(f"{kind}.solute", "Cu" if kind == "substitution" else "N", only, relaxed(other, perfect=False))
entry("interstitial.site", "octahedral", relaxed("interstitial-c-tetrahedral", perfect=False),
      relaxed("interstitial-c-octahedral", perfect=False))  # fmt: skip
CARBON = {"kind": "interstitial", "solute": "C", "site": "tetrahedral"}
VACANT = {"kind": "vacancy", "positions": [[0.5, 0.5, 0.0]]}


def several(key: str, value: Any, old: str, new: str, **more: dict) -> None:
    """A key of the last of several defects, whose settings are in the id as a digest."""
    names = (relaxed(f"defects-vacancy-{name}-#", "2x2x1", perfect=False) for name in (old, new))
    entry(f"point_defects.defects.{key}", value, *names, **more)


several("kind", "substitution", "vacancy", "si", given={"defects": [{"kind": "vacancy"}, VACANT]},
        along={"defects": [{"kind": "vacancy"}, {**VACANT, "solute": "Si"}]})  # fmt: skip
several("solute", "Cu", "si", "cu")
several("site", "octahedral", "c-tetrahedral", "c-octahedral", given={"defects": [{"kind": "vacancy"}, CARBON]})
several("positions", [[0.5, 0.5, 0.0]], "si", "si")
several("neighbour.shell", 2, "si", "si")
BESIDE = {"kind": "substitution", "solute": "Si", "neighbour": {"shell": 1, "of": 0}}
several("neighbour.of", 1, "si-si", "si-si", given={"defects": [{"kind": "vacancy"}, BESIDE, BESIDE]})
several("count", 2, "si", "si")
several("concentration", 0.1, "si", "si")
entry("random_defects.samples", 2, "", "", "structure_block")
entry(
    "random_defects.defect",
    "substitution",
    "random-vacancy-10pct",
    "random-substitution-si-10pct",
    along={"solute": "Si"},
)
entry("random_defects.solute", "Cu", "random-substitution-si-10pct", "random-substitution-cu-10pct",
      given={"defect": "substitution", "solute": "Si"})  # fmt: skip
entry("random_defects.site", "octahedral", "random-interstitial-c-tetrahedral-10pct",
      "random-interstitial-c-octahedral-10pct",
      given={"defect": "interstitial", "solute": "C", "site": "tetrahedral"})  # fmt: skip
entry("random_defects.concentrations", [0.05], "random-vacancy-10pct", "random-vacancy-5pct")
entry("random_displacements.samples", 2, "", "", "structure_block")
entry("random_displacements.distribution", "uniform", "displaced-gaussian-3pct", "displaced-uniform-3pct")
entry("random_displacements.fractions", [0.02], "displaced-gaussian-3pct", "displaced-gaussian-2pct")
entry("thermal.supercell", [2, 2, 2], "thermal-300K-2x1x1 perfect-2x1x1", "thermal-300K-2x2x2 perfect-2x2x2")
entry("thermal.preset", "laptop", "thermal-300K-2x1x1 perfect-2x1x1", "thermal-300K-2x1x1-laptop perfect-2x1x1-laptop")
entry("thermal.temperatures", [200], "thermal-300K-2x1x1", "thermal-200K-2x1x1")
entry("thermal.protocol", "equilibrated", "thermal-300K-2x1x1", "thermal-equilibrated-300K-2x1x1")
entry("thermal.flights", 2, "", "", "aimd", "aimd_segment", "structure_thermal", "figures",
      given={"protocol": "equilibrated"})  # fmt: skip
RELAXED = {"potential": "default"}
BOTH = "dislocation-edge-2 dislocation-edge-2-control"
entry("dislocation.potential", "default", "dislocation-edge-2", "dislocation-edge-2-relaxed")
entry("dislocation.fmax", 0.02, "", "", "structure_dislocation al-dislocation-edge-2-relaxed", given=RELAXED)
entry("dislocation.rim", 9.0, "", "", "structure_dislocation al-dislocation-edge-2-relaxed", given=RELAXED)
entry("dislocation.character", "screw", BOTH, BOTH.replace("edge", "screw"))
entry("dislocation.method", "half-planes", "dislocation-edge-2", "dislocation-edge-2-half-planes")
entry("dislocation.count", 3, BOTH, BOTH.replace("2", "3"))
entry("dislocation.spacing", 22, "", "", "structure_dislocation", "figures")  # whose titles say it
entry("dislocation.periodic", True, BOTH, BOTH.replace("2", "2-row"))
entry("dislocation.size", [48, 36], "", "", "structure_dislocation")
entry("dislocation.line_repeat", 4, "", "", "structure_dislocation")
entry("twin.potential", "default", "twin", "twin-relaxed")
entry("twin.fmax", 0.02, "", "", "structure_twin al-twin-relaxed", given=RELAXED)
entry("twin.rim", 9.0, "", "", "structure_twin al-twin-relaxed", given=RELAXED)
entry("twin.size", [24, 30, 25], "", "", "structure_twin")
entry("twin.thickness", 10.0, "twin twin-control", "twin-stack-10A twin-stack-10A-control")


class Workflow:
    """A copy of the workflow that tells the jobs of configurations."""

    def __init__(self, folder: Path):
        copy_workflow(ROOT, folder)
        shutil.copyfile(folder / MATERIALS, folder / OTHER_TABLE)
        (folder / FOLDER).mkdir()
        crystals = folder / FOLDER
        atoms = bulk("Pd", "fcc", a=3.89, cubic=True)
        write(crystals / "Pd.cif", atoms)
        (folder / "resources/materials_project").mkdir(exist_ok=True)
        write(folder / "resources/materials_project/mp-1.cif", bulk("Ag", "fcc", a=4.08, cubic=True))
        self.folder, self.known = folder, {}
        command = [sys.executable, str(HERE / "parameters.py")]
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def jobs(self, raw: dict) -> dict:
        """Params and inputs of all jobs of a configuration."""
        text = json.dumps(raw)
        if text not in self.known:
            name = "config/key.yaml"
            (self.folder / name).write_text(text)
            self.process.stdin.write(f"{name}\n")
            self.process.stdin.flush()
            self.known[text] = json.loads(self.process.stdout.readline())
        return self.known[text]

    def changed(self, key: str) -> set[str]:
        """The jobs that the row of a key changes."""
        before = self.jobs(configuration(key, new=False))
        assert "error" not in before, before["error"]
        return changed(before, self.jobs(configuration(key, new=True)))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def configuration(key: str, new: bool) -> dict:
    """The configuration before the change that the row of a key makes, or after it."""
    raw, case = deepcopy(BASE), deepcopy(ROWS[key])
    section, _, rest = key.partition(".")
    if section in config.KINDS:
        target = {"kind": section, "host": "Al", **deepcopy(ENTRIES[section]), **case.given}
        raw["conditions"] = [target]
    else:
        raw |= case.given
        inside = {"models": raw["models"][-1], "pattern_sets": raw["pattern_sets"]["fine"]}
        target, rest = (inside[section], rest) if section in inside else (raw, key)
    if new:
        target |= case.along
        *above, last = rest.split(".")
        for name in above:
            target = target.setdefault(name, {})
            target = target[-1] if isinstance(target, list) else target
        target[last] = case.value
    return raw


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    workflow = Workflow(tmp_path_factory.mktemp("keys") / "defraction")
    yield workflow
    workflow.close()


def test_every_key_has_a_row():
    assert set(leaves(config.Config)) == set(ROWS)


@pytest.mark.parametrize("key", ROWS)
def test_a_key_changes_its_jobs_and_no_others(workflow, key):
    assert workflow.changed(key) == ROWS[key].jobs


def test_drawn_crystals_are_nothing_to_a_model_without_them(workflow):
    main, other = deepcopy(BASE["models"])
    raw = {**BASE, "models": [main, {**other, "split": {"drawn": False}}]}
    drawn = {**raw, "materials": {**BASE["materials"], "drawn": 20}}
    assert changed(workflow.jobs(raw), workflow.jobs(drawn)) == {"+crystal", *(f"{rule} main-seed1" for rule in LIST)}

    large = {**drawn, "diffraction": {**BASE["diffraction"], "pixels": 512}}
    (workflow.folder / "config/large.yaml").write_text(json.dumps(large))
    wanted = [f"results/models/{name}-seed1/card.json" for name in ("main", "other")]
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--configfile",
        "config/large.yaml",
        "--cores",
        "1",
        "--",
        *wanted,
    ]
    plan = subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True, check=True).stdout
    jobs = re.findall(r"output:[^\n]*results/models/([a-z]+)-seed1/card.json.*?mem_mb=(\d+)", plan, re.S)
    memory = {name: int(mb) for name, mb in jobs}
    crystals = len(workflow.jobs(raw)["split other-seed1"][0]["materials"])
    images = {"main": crystals + 100, "other": crystals}  # of two zone axes in half precision [MB]
    assert memory == {name: 8000 + math.ceil(number * 2 * 2 * 512**2 / 1e6) for name, number in images.items()}
    assert "results/patterns/clean/drawn-225-019.nc" in plan
    assert "results/pattern_sets/fine/clean/drawn" not in plan


# Columns of the tables of hosts (of Al, which the first-principles tables know, and of Cu) and of crystals

DEFECTS = {"structure_point", "structure_block", "structure_dislocation", "structure_twin", "relax", "relax_segment"}
AL = {*DEFECTS, "aimd", "aimd_segment", "lattice Al", "elastic Al", "structure_strain al-pristine"}
STIFF = {"structure_dislocation", "structure_strain al-pristine"}  # unstrained, they are checked at least
COLUMNS = {
    ("hosts", "Al", "lattice_parameter", "4.05"): AL,
    ("hosts", "Al", "magnetic_moment", "0.1"): AL,
    ("hosts", "Al", "c11", "107"): STIFF,
    ("hosts", "Al", "c12", "61"): STIFF,
    ("hosts", "Al", "c44", "28"): STIFF,
    ("hosts", "Al", "debye_temperature", "420"): {"summary"},  # displacements
    ("hosts", "Cu", "lattice_parameter", "3.6"): {
        "lattice Cu",
        "elastic Cu",
        "structure_strain cu-pristine",
        "structure_strain cu-strain-stress-xx+1GPa-gpaw",
    },
    # The strain is one by computed constants, whose steps follow from the measured ones.
    ("hosts", "Cu", "c11", "168"): {"elastic Cu", "structure_strain cu-pristine"},
    ("hosts", "Cu", "c12", "121"): {"structure_strain cu-pristine"},
    ("materials", "Al-225", "lattice_parameter_angstrom", "4.06"): {"clean_structure crystal"},
} | {
    (table, name, column, "another"): set()
    for table, name, columns in (
        ("hosts", "Al", ("lattice_reference", "elastic_reference", "moment_reference", "debye_reference")),
        ("materials", "Al-225", ("prototype_name", "reference")),
    )
    for column in columns
}


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: "-".join(column[:3]))
def test_a_column_of_a_table_changes_the_jobs_that_use_it(workflow, column):
    table, name, key, value = column
    path = workflow.folder / ("resources/hosts.csv" if table == "hosts" else MATERIALS)
    text = path.read_text()
    rows = list(csv.DictReader(text.splitlines()))
    chosen = next(row for row in rows if name in (row.get("name"), row.get("material")))
    assert chosen[key] != value
    chosen[key] = value
    before = workflow.jobs(BASE)
    try:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        after = workflow.jobs({**BASE, "reductions": []})  # the same, under a name that is not known yet
    finally:
        path.write_text(text)
        workflow.known.pop(json.dumps({**BASE, "reductions": []}), None)
    assert changed(before, after) == COLUMNS[column]


def test_what_is_left_out_of_the_row_of_a_host_decides_nothing(workflow, root):
    """Settings from the params of a job are those from the whole row, also of a host that the tables do not know."""
    hosts = {name: asdict(host) for name, host in read_hosts(root / "resources/hosts.csv").items()}
    cell = {"supercell": [2, 1, 1]}
    conditions = [
        entry
        for host in ("Al", "Fe", "Cu", "Ni")
        for entry in (
            {"kind": "vacancy", "host": host, **cell},
            {"kind": "thermal", "host": host, **cell, "temperatures": [300], "protocol": "equilibrated"},
        )
    ]
    tried = set()
    for job, (params, _) in workflow.jobs({**BASE, "conditions": conditions}).items():
        task = job.split()[0]
        if task not in ("lattice", "relax", "aimd", "elastic"):
            continue
        given, whole = params["host"], hosts[params["host"]["name"]]
        assert given.items() <= whole.items() and Host(**given).lattice_parameter == whole["lattice_parameter"]
        asked = {key: params[key] for key in ("supercell", "temperature", "protocol") if key in params}
        for preset in PRESETS:
            assert settings_for(given, preset, task, **asked) == settings_for(whole, preset, task, **asked)
        tried.add((task, given["name"]))
    assert len(tried) == 16


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        workflow = Workflow(Path(folder) / "defraction")
        for key in leaves(config.Config):
            if key not in ROWS:
                print(f"{key}: no row")
                continue
            try:
                words = workflow.changed(key)
            except AssertionError as error:
                print(f"{key}: {error}")
                continue
            print(f"{'' if words == ROWS[key].jobs else 'OTHER '}{key}: {sorted(words)}", flush=True)
        workflow.close()
