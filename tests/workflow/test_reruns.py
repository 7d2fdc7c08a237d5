"""After a change, exactly the right jobs: the table "I changed X, what runs" of docs/running.md, row by row.

What runs is read from the document, so that it cannot say anything else than what is tested; what is changed stands
here under the text of the first column. The study is one that is finished in name only (finished.py).

    python tests/workflow/test_reruns.py      prints the table as the present workflow has it (of each row one change)
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from finished import CONFIG, MATERIALS, POTENTIAL, Finished, Planner, copy_workflow

from defraction import prune_command

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "workflow/scripts/defraction"
ROWS: dict[str, "Row"] = {}


@dataclass
class Row:
    """What is changed (one or more changes, each on its own), and what those jobs are about whose rules do not run as a
    whole: conditions, crystals, hosts or models."""

    changes: list
    only: set[str] = field(default_factory=set)
    arguments: tuple[str, ...] = ()


class Edit:
    """Changes of a study that are taken back, times included."""

    def __init__(self, folder: Path):
        self.folder, self.saved = folder, {}

    def keep(self, name: str) -> Path:
        path = self.folder / name
        if path not in self.saved:
            self.saved[path] = (path.read_bytes(), path.stat()) if path.exists() else None
        return path

    def write(self, name: str, text: str) -> None:
        path = self.keep(name)
        assert path.read_text() != text, f"{name}: this changes nothing"
        path.write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text, f"{name} does not contain {old!r}"
        self.write(name, text.replace(old, new, 1))

    def append(self, name: str, text: str) -> None:
        self.write(name, (self.folder / name).read_text() + text)

    def config(self, change) -> None:
        raw = yaml.safe_load((self.folder / CONFIG).read_text())
        change(raw)
        self.write(CONFIG, yaml.safe_dump(raw, sort_keys=False))

    def delete(self, name: str) -> None:
        self.keep(name).unlink()

    def undo(self) -> None:
        for path, saved in self.saved.items():
            if saved is None:
                path.unlink(missing_ok=True)
                continue
            content, stat = saved
            path.write_bytes(content)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def row(text: str, *only: str, arguments: tuple[str, ...] = ()):
    """Decorate one change of the row `text` of the table."""

    def add(change):
        ROWS.setdefault(text, Row([], set(only), arguments)).changes.append(change)
        return change

    return add


def settings(text: str, *values: dict, only: tuple[str, ...] = ()) -> None:
    """A row whose changes are values in sections of the configuration: {"learning": {"epochs": 4}}."""
    for value in values:

        @row(text, *only)
        def change(edit, value=value):
            edit.config(lambda raw: _merge(raw, value))


def modules(text: str, *names: str, only: tuple[str, ...] = ()) -> None:
    """A row whose changes are new statements in modules of the library, one after the other."""
    for name in names:

        @row(text, *only)
        def change(edit, name=name):
            edit.append(f"{LIBRARY}/{name}", "\nCHANGED = 1\n")


def condition(raw: dict, **keys) -> dict:
    """The first entry of `conditions` with these values."""
    return next(c for c in raw["conditions"] if all(c.get(k) == v for k, v in keys.items()))


def entry(text: str, only: tuple[str, ...], find: dict, **values) -> None:
    """A row that changes one entry of `conditions`."""

    @row(text, *only)
    def change(edit):
        edit.config(lambda raw: condition(raw, **find).update(values))


def _merge(raw: dict, values: dict) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and key != "debye_waller":
            _merge(raw.setdefault(key, {}), value)
        else:
            raw[key] = value


STRAIN = ("al-pristine", "al-strain-xx+2pct", "al-strain-xx+3.5pct", "fe-pristine", "fe-strain-xy+0.03rad")
PERFECT = ("al-perfect-2x1x1", "fe-perfect-2x1x1")
RELAXED = (
    "al-vacancy-2x1x1", "fe-vacancy-2x1x1", "al-substitution-si-2x1x1", "al-interstitial-c-tetrahedral-2x1x1",
)  # fmt: skip
UNRELAXED = tuple(f"{name}-unrelaxed" for name in RELAXED)
THERMAL = ("al-thermal-100K-2x1x1", "al-thermal-300K-2x1x1")
BLOCK = ("al-displaced-gaussian-3pct", "al-random-vacancy-10pct")
TWIN = ("al-twin-relaxed", "al-twin-control")
DISLOCATION = ("al-dislocation-edge-2", "al-dislocation-edge-2-control")

# Nothing physical


@row("nothing")
def nothing(edit):
    pass


@row("the times of all files: a touch, a checkout, an unpacked archive")
def touched(edit):
    """Sources, code and results."""
    later = time.time() + 5
    for path in edit.folder.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            edit.keep(str(path.relative_to(edit.folder)))
            os.utime(path, (later, later))


@row("the times of all files: a touch, a checkout, an unpacked archive")
def old(edit):
    for name in ("workflow", "config", "resources"):
        for path in (edit.folder / name).rglob("*"):
            if path.is_file():
                edit.keep(str(path.relative_to(edit.folder)))
                os.utime(path, (1e9, 1e9))


@row("comments, docstrings and formatting of the code")
def formatted(edit):
    edit.replace(f"{LIBRARY}/diffraction/scattering.py", "\nimport", "\n# a comment\nimport")
    edit.replace(f"{LIBRARY}/defects/strain.py", '"""', '"""Another docstring. ')
    edit.replace("workflow/scripts/simulate.py", "with job", "\n\n# another\nwith job")
    edit.replace("workflow/scripts/train.py", "run.input.split,\n", "run.input.split,  # why\n\n")


@row("order of the keys in the configuration")
def reordered(edit):
    def change(raw):
        items = list(raw.items())[::-1]
        raw.clear()
        raw.update(items)
        raw["diffraction"] = dict(list(raw["diffraction"].items())[::-1])
        raw["conditions"] = [dict(list(c.items())[::-1]) for c in raw["conditions"]]

    edit.config(change)


settings(
    "`runtime`: device, memory, threads, processes, ranks, launcher, wall time, segments",
    {"runtime": {"device": "cpu", "memory": 1.0, "training_threads": 1, "training_processes": 2}},
    {"runtime": {"gpaw_ranks": 2, "mpi_launcher": "srun", "walltime": 3600.0, "segments": 3}},
)
modules(
    "a module that frames jobs or is a command: `job`, `provenance`, `config`, `cli` and the like",
    "job.py", "provenance.py", "digest.py", "config.py", "expansion.py", "preflight.py", "cli.py",
)  # fmt: skip


@row("an environment file, without `--use-conda`")
def environment(edit):
    for path in (edit.folder / "workflow/envs").glob("*.yaml"):
        edit.append(str(path.relative_to(edit.folder)), "# another\n")


@row("a citation in the table of hosts or of crystals")
def citations(edit):
    edit.replace("resources/hosts.csv", "Vallin et al.", "Vallin")
    edit.replace("resources/hosts.csv", "CRC Handbook", "Another handbook")


@row("a citation in the table of hosts or of crystals")
def more_citations(edit):
    line = next(x for x in (edit.folder / MATERIALS).read_text().splitlines() if x.startswith("Al-225"))
    *others, citation = line.split('"')[:-1]
    edit.replace(MATERIALS, line, '"'.join([*others, f"{citation}, again", ""]))


@row("an intermediate result deleted whose followers are there")
def deleted(edit):
    edit.delete("results/structures/al-vacancy-2x1x1.cif")


# Presentation

settings("`presentation.colour`", {"presentation": {"colour": "#123456"}})
settings("`presentation.pattern_decades`", {"presentation": {"pattern_decades": 4.0}})
settings("`reductions`", {"reductions": ["another text"]})
modules("the look of all figures: `figures/style`", "figures/style.py")
modules("the module of figures of accuracies: `figures/accuracies`", "figures/accuracies.py")
modules("the module of figures of crystals: `figures/crystals`", "figures/crystals.py")
modules("the module of the report: `report`", "report.py")

# Crystals


@row("a lattice parameter in the table of crystals", "Al-225")
def crystal(edit):
    edit.replace(MATERIALS, "4.0495", "4.0500")


@row("one more crystal in the table", "Pd-225")
def more_crystals(edit):
    line = next(x for x in (edit.folder / MATERIALS).read_text().splitlines() if x.startswith("Al-225"))
    edit.append(MATERIALS, line.replace("Al-225,Al", "Pd-225,Pd").replace("Al:4a", "Pd:4a") + "\n")


settings("one crystal less: `materials.exclude`", {"materials": {"exclude": ["Fe-229"]}})
settings("`specimen.repeat`", {"specimen": {"repeat": [12, 10, 6]}}, only=(*STRAIN, *BLOCK))
settings(
    "`specimen.supercell_repeat`",
    {"specimen": {"supercell_repeat": [6, 6, 4]}},
    only=(*PERFECT, *RELAXED, *UNRELAXED, *THERMAL),
)
modules("the module of the clean crystals: `materials`", "materials.py")

# Conditions

AL = {name for name in (*STRAIN, *RELAXED, *UNRELAXED, *PERFECT) if name.startswith("al-")}


@row("an elastic constant of a host", *(name for name in STRAIN if name.startswith("al-")), *DISLOCATION)
def elastic_constant(edit):
    edit.replace("resources/hosts.csv", "107.3,60.8", "107.0,60.8")


@row("the lattice parameter of a host", *AL, *THERMAL, *BLOCK, *TWIN, *DISLOCATION, "Al")
def lattice_parameter(edit):
    edit.replace("resources/hosts.csv", "225,4.0496", "225,4.0500")


entry(
    "one strain value", ("al-strain-xx+4pct",),
    {"kind": "strain", "host": "Al"}, values=[0.02, 0.04],
)  # fmt: skip
entry(
    "one more strain value", ("al-strain-xx+5pct",),
    {"kind": "strain", "host": "Al"}, values=[0.02, 0.035, 0.05],
)  # fmt: skip
entry("one strain value removed", (), {"kind": "strain", "host": "Al"}, values=[0.02])
entry(
    "the component of a strain", ("fe-strain-xz+0.03rad",), {"kind": "strain", "host": "Fe"}, component="xz",
)  # fmt: skip
entry(
    "where the elastic constants of a strain come from: `elastic: gpaw`",
    ("al-strain-xx+2pct-gpaw", "al-strain-xx+3.5pct-gpaw", "Al"),
    {"kind": "strain", "host": "Al"}, elastic="gpaw",
)  # fmt: skip
entry(
    "one more temperature of molecular dynamics", ("al-thermal-400K-2x1x1",),
    {"kind": "thermal"}, temperatures=[100, 300, 400],
)  # fmt: skip
entry(
    "the protocol of molecular dynamics",
    ("al-thermal-equilibrated-100K-2x1x1", "al-thermal-equilibrated-300K-2x1x1"),
    {"kind": "thermal"}, protocol="equilibrated",
)  # fmt: skip
entry("the number of flights of molecular dynamics", THERMAL, {"kind": "thermal"}, flights=2)
entry(
    "the supercell of a vacancy", ("al-perfect-2x2x1", "al-vacancy-2x2x1", "al-vacancy-2x2x1-unrelaxed"),
    {"kind": "vacancy", "host": "Al"}, supercell=[2, 2, 1],
)  # fmt: skip


@row("a supercell added, of a vacancy", "al-perfect-2x2x1", "al-vacancy-2x2x1", "al-vacancy-2x2x1-unrelaxed")
def added_supercell(edit):
    new = {"kind": "vacancy", "host": "Al", "supercell": [2, 2, 1]}
    edit.config(lambda raw: raw["conditions"].append(new))


entry(
    "the solute of a substitution",
    ("al-substitution-cu-2x1x1", "al-substitution-cu-2x1x1-unrelaxed"),
    {"kind": "substitution"}, solute="Cu",
)  # fmt: skip
entry(
    "the site of an interstitial",
    ("al-interstitial-c-octahedral-2x1x1", "al-interstitial-c-octahedral-2x1x1-unrelaxed"),
    {"kind": "interstitial"}, site="octahedral",
)  # fmt: skip
entry(
    "the preset of a vacancy alone",
    ("al-perfect-2x1x1-laptop", "al-vacancy-2x1x1-laptop", "al-vacancy-2x1x1-laptop-unrelaxed", "Al-laptop"),
    {"kind": "vacancy", "host": "Al"}, preset="laptop",
)  # fmt: skip
entry(
    "the concentration of random defects", ("al-random-vacancy-5pct",),
    {"kind": "random_defects"}, concentrations=[0.05],
)  # fmt: skip
entry("the samples of random defects", ("al-random-vacancy-10pct",), {"kind": "random_defects"}, samples=2)
entry(
    "the distribution of random displacements", ("al-displaced-uniform-3pct",),
    {"kind": "random_displacements"}, distribution="uniform",
)  # fmt: skip
entry(
    "the spacing of dislocations", DISLOCATION,
    {"kind": "dislocation"}, spacing=24,
)  # fmt: skip
entry("the size of a twin", TWIN, {"kind": "twin"}, size=[24, 30, 25])


@row("a potential file of one's own", "al-twin-relaxed")
def potential(edit):
    edit.replace(POTENTIAL, "potential", "other potential")


@row("a condition added", "al-strain-hydrostatic+1pct")
def added(edit):
    new = {"kind": "strain", "host": "Al", "mode": "hydrostatic", "values": [0.01]}
    edit.config(lambda raw: raw["conditions"].append(new))


@row(
    "a condition added, with point defects of several kinds",
    "al-defects-vacancy-si-0e6fcd-2x1x1",
    "al-defects-vacancy-si-0e6fcd-2x1x1-unrelaxed",
)
def added_pair(edit):
    pair = [{"kind": "vacancy"}, {"kind": "substitution", "solute": "Si", "positions": [[1, 0, 0]]}]
    new = {"kind": "point_defects", "host": "Al", "supercell": [2, 1, 1], "defects": pair}
    edit.config(lambda raw: raw["conditions"].append(new))


@row("a condition added, of a host that had none", "cu-pristine")
def added_host(edit):
    edit.config(lambda raw: raw["conditions"].append({"kind": "pristine", "host": "Cu"}))


@row("a condition removed (its files stay: `defraction prune`)")
def removed(edit):
    edit.config(lambda raw: raw["conditions"].remove(condition(raw, kind="vacancy", host="Fe")))


modules(
    "the module of point defects: `defects/point`", "defects/point.py",
    only=(*PERFECT, *RELAXED, *UNRELAXED, *THERMAL, *BLOCK),
)  # fmt: skip
modules(
    "the module of strain: `defects/strain`", "defects/strain.py",
    only=(*STRAIN, *DISLOCATION),
)  # fmt: skip
modules("the module of twins: `defects/twin`", "defects/twin.py", only=TWIN)
modules(
    "the module of dislocations: `defects/dislocation`", "defects/dislocation.py",
    only=DISLOCATION,
)  # fmt: skip
modules(
    "the module of random displacements: `defects/displacements`", "defects/displacements.py",
    only=BLOCK,
)  # fmt: skip

# First principles

settings(
    "`first_principles.preset`",
    {"first_principles": {"preset": "laptop"}},
    only=(*PERFECT, *RELAXED, *UNRELAXED, *THERMAL),
)
settings(
    "`first_principles.overrides` of the relaxations",
    {"first_principles": {"overrides": {"relax": {"fmax": 0.2}}}},
    only=RELAXED,
)
settings(
    "`first_principles.overrides` of molecular dynamics",
    {"first_principles": {"overrides": {"aimd": {"timestep": 1.5}}}},
    only=THERMAL,
)
settings(
    "`first_principles.source`, where the library holds none of the study", {"first_principles": {"source": "library"}}
)


@row("the Debye temperature of a host")
def debye_temperature(edit):
    edit.replace("resources/hosts.csv", "0.0,412,", "0.0,420,")


modules(
    "a module of all GPAW runs, or of lattice constants: `first_principles/calculator`, `first_principles/lattice`",
    "first_principles/calculator.py", "first_principles/lattice.py",
    only=(*PERFECT, *RELAXED, *UNRELAXED, *THERMAL),
)  # fmt: skip
modules(
    "the module of elastic constants, where no strain has `elastic: gpaw`: `first_principles/elastic`",
    "first_principles/elastic.py",
)
modules("the module of relaxation: `first_principles/relax`", "first_principles/relax.py", only=RELAXED)
modules("the module of molecular dynamics: `first_principles/aimd`", "first_principles/aimd.py", only=THERMAL)

# Patterns

settings(
    "a setting of `diffraction`", {"diffraction": {"camera_lengths": [0.7]}}, {"diffraction": {"tilt": [1.0, 0.0]}}
)
settings(
    "`diffraction.model` and `diffraction.pixels`, which the table of models names",
    {"diffraction": {"model": "article"}},
    {"diffraction": {"pixels": 40}},
)
settings(
    "`diffraction.zone_axes`",
    {"diffraction": {"zone_axes": [[0, 0, 1], [0, 1, 1], [1, 1, 2]]}},
    only=DISLOCATION,  # patterns along axes of their own, one of which is among the others now
)
modules("a module of diffraction: `diffraction/scattering`", "diffraction/scattering.py")
modules("writing and reading of structures: `structures`", "structures.py")


@row("a structure edited by hand", "al-twin-relaxed")
def edited(edit):
    edit.append("results/structures/al-twin-relaxed.cif", "# another atom")


# Learning

settings(
    "a setting of `learning`",
    {"learning": {"epochs": 4}},
    {"learning": {"weight_decay": 0.01}},
    {"learning": {"augmentation": {"mirror": True}}},
)
settings("`learning.architecture`, which the table of models names", {"learning": {"architecture": "resnet18"}})
settings(
    "`learning.split.held_out`, and `keep: best` or `early_stop`, which need a part for validation",
    {"learning": {"split": {"held_out": 0.4}}},
    {"learning": {"keep": "best"}},
    {"learning": {"early_stop": 2}},
)
settings(
    "`learning.split.hosts`, which the table of models names", {"learning": {"split": {"hosts": "held_out"}}}
)  # fmt: skip
settings(
    "one more seed of the model (for the new network alone)", {"models": [{"seeds": [1, 2]}]}, only=("main-seed2",)
)
settings(
    "one more model (for the new network alone)",
    {"models": [{"name": "main"}, {"name": "small", "architecture": "resnet18"}]},
    only=("small-seed1",),
)
settings("a set of patterns that no model uses", {"pattern_sets": {"fine": {"pixels": 40}}})
settings(
    "a set of patterns and a model on it (for those alone)",
    {"pattern_sets": {"fine": {"pixels": 40}}, "models": [{"name": "main"}, {"name": "fine", "pattern_set": "fine"}]},
    only=("fine", "fine-seed1", "pattern_sets/fine"),
)
modules("the module of networks: `learning/model`", "learning/model.py")
modules("the module of training: `learning/train`", "learning/train.py")
modules("the module of predictions: `learning/infer`", "learning/infer.py")
modules("the module of labels: `learning/labels`", "learning/labels.py")

# Evaluation and everything

settings(
    "a setting of `evaluation` other than `rotated_copies`",
    {"evaluation": {"draws": 100}},
    {"evaluation": {"ensemble_sizes": [1, 2]}},
)
settings("`evaluation.rotated_copies`", {"evaluation": {"rotated_copies": 2}})
modules(
    "a module of evaluation: `evaluation/scoring`, `evaluation/intervals`",
    "evaluation/scoring.py",
    "evaluation/intervals.py",
)
modules("the module of the comparison with the article: `evaluation/comparison`", "evaluation/comparison.py")
settings(
    "`seed`", {"seed": 5},
    only=(*BLOCK, *THERMAL, "main-seed5"),
)  # fmt: skip


@row("an environment file, with `--use-conda` (here `learning.yaml`)", arguments=("--use-conda",))
def environment_with_conda(edit):
    edit.append("workflow/envs/learning.yaml", "# another\n")


class Study:
    """The finished study, all its jobs, and the groups of rules that the table has a name for."""

    def __init__(self, folder: Path):
        self.planner = Planner(folder / "planner")
        self.finished = Finished(self.planner, folder / "defraction")
        copy_workflow(ROOT, self.finished.folder)
        self.jobs = self.finished.make()
        self.order = re.findall(
            r"(?m)^rule (\w+):",
            "".join(
                (ROOT / f"workflow/rules/{name}.smk").read_text()
                for name in re.findall(r'rules/(\w+)\.smk"', (ROOT / "workflow/Snakefile").read_text())
            ),
        )
        summary = set(self.finished.planned("--forcerun", "predict", "predict_clean")) - {"predict", "predict_clean"}
        training = set(self.finished.planned("--forcerun", "train"))
        self.groups = {"training and everything after it": training, "the summary": summary}

    def with_conda(self) -> Finished:
        """The same, made with --use-conda."""
        if not hasattr(self, "_conda"):
            folder = self.finished.folder.with_name("with-conda")
            copy_workflow(ROOT, folder)
            self._conda = Finished(self.planner, folder, "--use-conda")
            self._conda.make()
        return self._conda

    def whole(self, rule: str, values: list[str]) -> bool:
        """Whether the rule runs for all that it is about (conditions, crystals), for one model or set of patterns."""

        def subjects(values):
            parts = [value.split(", ") for value in values]
            return {p[-1] if not re.search(r"-seed\d+$", p[-1]) else "" for p in parts}

        return subjects(values) >= subjects(self.jobs.get(rule, ["never"]))

    def describe(self, jobs: dict[str, list[str]]) -> str:
        """The jobs as a cell of the table."""
        left, words = dict(jobs), []
        for name, rules in self.groups.items():
            if rules <= left.keys() and all(self.whole(rule, left[rule]) for rule in rules):
                words.append(name)
                left = {rule: values for rule, values in left.items() if rule not in rules}
        names = []
        for rule, values in sorted(left.items(), key=lambda item: self.order.index(item[0])):
            if self.whole(rule, values):
                names.append(f"`{rule}`" + (" (all)" if len(values) > 1 else ""))
            else:
                names.append(f"`{rule}`" + (f" ({len(values)})" if len(values) > 1 else ""))
        return ", ".join(names + words) or "nothing"

    def about(self, jobs: dict[str, list[str]]) -> set[str]:
        """What those jobs are about whose rules do not run as a whole: conditions, crystals, hosts, and models and sets
        of patterns that are new."""
        known = {value for values in self.jobs.values() for value in values}
        models = {value.split(", ")[0] for value in known}
        about = set()
        for rule, values in jobs.items():
            new = set(values) - set(self.jobs.get(rule, [])) if self.whole(rule, values) else set(values)
            for parts in (value.split(", ") for value in new):
                about.add(parts[-1] if parts[0] in models else parts[0])
        return about - {""}

    @contextmanager
    def changed(self, change, arguments=()):
        """The study after a change; taken back at the end."""
        finished = self.with_conda() if arguments else self.finished
        edit = Edit(finished.folder)
        try:
            change(edit)
            yield finished
        finally:
            edit.undo()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("reruns"))
    yield study
    study.planner.close()


@pytest.fixture(scope="module")
def documented() -> dict[str, str]:
    """The table: what runs, by what was changed."""
    text = (ROOT / "docs/running.md").read_text().split("## I changed X, what runs")[1].split("\n## ")[0]
    cells = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cell[0]: cell[1] for cell in cells[2:]}


def test_the_table_has_the_rows_that_are_tested(documented):
    assert list(documented) == list(ROWS)
    assert len(ROWS) >= 20


@pytest.mark.parametrize("text", ROWS)
def test_what_runs(study, documented, text):
    row = ROWS[text]
    for change in row.changes:
        with study.changed(change, row.arguments) as finished:
            jobs = finished.planned()
        assert study.describe(jobs) == documented[text], jobs
        assert study.about(jobs) == row.only


def test_set_back_before_a_run_nothing_runs(study):
    with study.changed(lambda edit: edit.config(lambda raw: raw.update(seed=7))) as finished:
        finished.planned()
    assert study.finished.planned() == {}


def test_segments_are_those_of_results_that_stay(study):
    """Another number of segments reruns nothing that is there, and is taken by what runs again for another reason:
    settings of its own or of the lattice constant that it starts from."""
    command = [sys.executable, str(Path(__file__).with_name("parameters.py"))]
    done = subprocess.run(command, cwd=study.finished.folder, input=CONFIG, capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)

    def recorded(edit, **overrides):
        """Results of one segment each under a configuration of four."""
        for job, (params, _) in made.items():
            rule, *names = job.split()
            if job in {f"{rule} {name}" for name in study.jobs.get(rule, [])} and rule in ("lattice", "relax", "aimd"):
                record = {"params": params, "segments": 1}
                edit.write(f"results/first_principles/{rule}/{names[0]}.record.json", json.dumps(record))
        edit.config(lambda raw: raw.update(runtime={"segments": 4, "walltime": 3600.0}))
        edit.config(lambda raw: raw["first_principles"].update(overrides=overrides))

    def segments(**overrides):
        with study.changed(lambda edit: recorded(edit, **overrides)) as finished:
            jobs = finished.planned()
        return {task: sorted(jobs.get(f"{task}_segment", [])) for task in ("relax", "aimd")} if jobs else {}

    def all_of(names):
        return sorted(f"{name}, {left}" for name in names for left in (1, 2, 3))

    assert segments() == {}
    assert segments(aimd={"timestep": 1.5}) == {"relax": [], "aimd": all_of(THERMAL)}
    assert segments(lattice={"points": 7}) == {"relax": all_of(RELAXED), "aimd": all_of(THERMAL)}


def test_a_single_target_needs_only_its_chain(study):
    results = study.finished.folder / "results"
    shutil.move(results, results.with_name("away"))
    try:
        jobs = study.finished.planned("results/patterns/al-vacancy-2x1x1.nc")
    finally:
        shutil.rmtree(results, ignore_errors=True)
        shutil.move(results.with_name("away"), results)
    assert set(jobs) == {"lattice", "relax", "structure_point", "simulate"}
    assert jobs["relax"] == ["al-vacancy-2x1x1"]


def test_a_copy_elsewhere(study, tmp_path):
    """A fresh clone with the results and .snakemake of another: everything is newer than it was, in any order."""
    copy = tmp_path / "copy"
    shutil.copytree(study.finished.folder, copy, copy_function=shutil.copy)
    assert Finished(study.planner, copy).planned() == {}


def jobs_of(text: str) -> set[tuple[str, frozenset]]:
    """Rule and wildcards of each job that a dry run prints."""
    return {
        (match[1], frozenset(re.findall(r"(\w+)=([^,\n]*)", (re.search(r"(?m)^ +wildcards: .*", block) or [""])[0])))
        for block in re.split(r"\n(?= *(?:local)?rule )", text)
        if (match := re.match(r" *(?:local)?rule (\w+):", block))
    }


@pytest.mark.parametrize("kinds", [("interstitial", "dislocation", "twin"), ("thermal", "vacancy", "substitution")])
def test_prune_lists_the_jobs_that_no_run_asks_for_any_more(study, kinds, monkeypatch):
    """Of a study with these conditions, and a model on a set of patterns of its own, before they were taken out."""

    def larger(raw):
        raw["pattern_sets"] = {"fine": {"pixels": 40}}
        raw["models"] = [{"name": "main"}, {"name": "fine", "pattern_set": "fine"}]

    def smaller(raw):
        raw["conditions"] = [c for c in raw["conditions"] if c["kind"] not in kinds]

    with study.changed(lambda edit: edit.config(larger)) as finished:
        before = jobs_of(finished.snakemake("--dry-run", "--forceall"))
    with study.changed(lambda edit: edit.config(smaller)) as finished:
        after = jobs_of(finished.snakemake("--dry-run", "--forceall"))
        monkeypatch.chdir(finished.folder)
        wanted = prune_command.needed(Path(CONFIG))
    nothing = {"outputs": [], "record": "results/none", "log": "logs/none"}
    records = [{"rule": rule, "wildcards": dict(wildcards), **nothing} for rule, wildcards in before]
    found = {(orphan.rule, frozenset(orphan.wildcards.items())) for orphan in prune_command.orphans(records, [wanted])}
    assert len(before - after) > 40
    # a lattice constant stays as long as its host has conditions
    assert found == {job for job in before - after if job[0] != "lattice"}


def test_switching_conda_on_runs_everything(study):
    """Which is why docs/running.md says: one way per results folder."""
    assert study.finished.planned("--use-conda").keys() == study.jobs.keys()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder))
        print("| changed | what runs |\n|---|---|")
        for text, row in ROWS.items():
            with study.changed(row.changes[0], row.arguments) as finished:
                jobs = finished.planned()
            print(f"| {text} | {study.describe(jobs)} |", flush=True)
            if (about := study.about(jobs)) != row.only:
                print(f"  {text}: about {sorted(about)}, expected {sorted(row.only)}", file=sys.stderr, flush=True)
        study.planner.close()
        print(f"{study.planner.cpu:.0f} CPU s", file=sys.stderr)
