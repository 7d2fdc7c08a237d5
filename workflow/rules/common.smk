# Shared by all files of rules: the checked configuration, the conditions, the crystals, digests of the code.

import difflib
import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError

if not isinstance(workflow.current_basedir, (str, os.PathLike)):
    raise WorkflowError(
        "this workflow brings a library, which github() and gitfile() do not fetch: clone the repository, and give "
        "`module` the path of the clone's workflow/Snakefile (docs/running.md)"
    )
# The library of this clone comes first, here and in the jobs, whatever else is installed.
SCRIPTS = str(Path(workflow.current_basedir).parent / "scripts")
# The clone as seen from here: "." but where another workflow uses this one as a module.
HOME = Path(os.path.relpath(Path(SCRIPTS).parent.parent))
sys.path.insert(0, SCRIPTS)
os.environ.update(PYTHONPATH=SCRIPTS)

from defraction import config as configuration
from defraction import conditions as table
from defraction import expansion
from defraction import hosts as host_table
from defraction import materials as material_table
from defraction import models as model_table
from defraction import panels as panel_table
from defraction.defects import potentials
from defraction.digest import code_digest
from defraction.first_principles.library import FOLDER, Library
from defraction.first_principles.tables import CURVATURE

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


try:
    settings = configuration.validate(
        config, ", ".join(map(str, workflow.configfiles)) or "config"
    )
    HOSTS = host_table.read_hosts(HOME / "resources/hosts.csv")
    CONDITIONS = expansion.expand(settings, HOSTS)
    potentials.check_conditions(CONDITIONS.values(), HOSTS)
    MATERIALS = material_table.catalogue(configuration.plain(settings.materials))
except (ValueError, OSError, ModuleNotFoundError) as error:
    raise WorkflowError(str(error)) from None
config.clear()
config.update(configuration.plain(settings))

MODELS = model_table.expand(settings)
HEADLINE = next(iter(MODELS))
PATTERN_SETS = {
    name: configuration.plain(settings.diffraction_of(name))
    for name in ("main", *settings.pattern_sets)
}
# `gpu` is what a cluster is asked for. On one machine, and inside a job of a cluster, `card` counts the slots of a card:
# most jobs take one, so that the start of one and the sums of another share it; training and GPAW take all.
GPU = configuration.gpus_per_job(settings.runtime)
CARD = 8
# A GPAW job on a cluster: so many MPI tasks of one core on one machine, started by the job's own launcher, for the time
# in which it ends by itself [min], with a quarter of an hour to start and for a step longer than those before it; without
# one, a day.
GPAW = {
    "gpu": int(settings.runtime.gpaw_gpu),
    "card": CARD * settings.runtime.gpaw_gpu,
    "tasks": settings.runtime.gpaw_ranks,
    "cpus_per_task": 1,
    "nodes": 1,
    "mpi": settings.runtime.mpi_launcher if settings.runtime.gpaw_ranks > 1 else None,
    "runtime": math.ceil((settings.runtime.walltime or 84600) / 60) + 15,
}
NEEDS_ABTEM = any(
    section["method"] == "multislice" or section["scattering_factors"] != "c4322"
    for section in PATTERN_SETS.values()
)
ELASTIC = ("c11", "c12", "c44")
FAMILIES = {
    "strain": r"[a-z]+-(pristine|strain-.+)",
    "point": r"[a-z]+-(perfect|vacancy|substitution|interstitial|defects)-.+",
    "block": r"[a-z]+-(random|displaced)-.+",
    "thermal": r"[a-z]+-thermal-.+",
    "dislocation": r"[a-z]+-dislocation-.+",
    "twin": r"[a-z]+-twin(-.+)?",
}
TEMPLATE = "workflow/report/report.html.j2"
SHOWN = table.representatives(CONDITIONS)[:48]
SHOWN_AXES = panel_table.shown_axes(
    CONDITIONS,
    {name: host.crystal_structure for name, host in HOSTS.items()},
    config["diffraction"]["zone_axes"],
)
PANELS = panel_table.panels(CONDITIONS, SHOWN_AXES, config["diffraction"]["zone_axes"])
RELAXED = [condition.id for condition in CONDITIONS.values() if condition.relaxed]
MOVING = [
    condition.id for condition in CONDITIONS.values() if condition.kind == "thermal"
]
POINT_DEFECTS = panel_table.relaxed_point_defects(CONDITIONS)[:12]
THERMAL = [panel.condition for panel in PANELS.get("thermal_patterns", [])[1:]]
FIGURES = panel_table.figures(
    CONDITIONS,
    PANELS,
    [PATTERN_SETS[m["pattern_set"]]["pixels"] for m in MODELS.values()],
)
CONDITIONS_DIGEST = table.digest(CONDITIONS)
LIBRARY = Library(
    HOME / FOLDER if config["first_principles"]["source"] == "library" else None
)


wildcard_constraints:
    condition=r"[A-Za-z0-9.+-]+",
    material=r"[A-Za-z0-9.+-]+",
    host=r"[A-Za-z]+",
    space_group=r"\d+",
    model=r"[a-z0-9-]+-seed\d+",
    pattern_set=r"[a-z0-9-]+",


def code(script):
    """A job's script as input, never compared by time. What it imports is in the digest and in the record: as inputs,
    ten more files of each job made planning a quarter slower."""
    return ancient(f"workflow/scripts/{script}")


def condition_of(wildcards):
    if wildcards.condition not in CONDITIONS:
        near = difflib.get_close_matches(wildcards.condition, CONDITIONS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise WorkflowError(
            f"no condition '{wildcards.condition}' in the configuration{hint}"
        )
    return CONDITIONS[wildcards.condition]


def settings_of(wildcards):
    return condition_of(wildcards).settings


def given(source):
    """A file that the configuration names or that stands with its whole path, as input: it is where that says, also where
    this workflow is a module of one that gives prefixes to the files of the clone."""
    return local(source)


def potential_of(wildcards):
    """The potential file that a condition names; none where it is one of LAMMPS, whose version is recorded."""
    name = settings_of(wildcards).get("potential")
    return [] if name in (None, "default", *potentials.SHIPPED) else given(name)


def settings_without_folders(wildcards):
    """Settings of a condition, a potential file by its name: its place is that of the input."""
    settings = settings_of(wildcards)
    if path := potential_of(wildcards):
        settings = {**settings, "potential": Path(path).name}
    return settings


def source_of(wildcards):
    """The table or file that a crystal comes from; a drawn one has none."""
    source = MATERIALS[wildcards.material].source
    return ancient(given(source)) if source else []


def material_of(wildcards):
    """The row of a crystal as far as it decides the crystal, without citation and without the place of its file, which
    is an input."""
    row = MATERIALS[wildcards.material].to_dict()
    for key in ("prototype_name", "reference", "source"):
        del row[key]
    return row


def host_of(wildcards):
    """The host's row as far as it decides results, by condition or by name; a name may carry a preset (Al-paper).
    Elastic constants are for those rules alone that start from them."""
    row = elastic_host_of(wildcards)
    return {key: value for key, value in row.items() if key not in ELASTIC}


def elastic_host_of(wildcards):
    """The host's row with its elastic constants."""
    name = getattr(wildcards, "host", None) or condition_of(wildcards).host
    row = asdict(HOSTS[name.partition("-")[0]])
    for key in ("lattice_reference", "elastic_reference", "debye_temperature"):
        del row[key]  # stand beside results only
    return row


def moving_host_of(wildcards):
    """The host's row for relaxations, molecular dynamics and elastic constants, whose steps follow from measured elastic
    constants where the tables do not say how stiff the crystal is."""
    row = elastic_host_of(wildcards)
    stiffness = () if row["name"] in CURVATURE else ("c11", "c44")
    return {**host_of(wildcards), **{key: row[key] for key in stiffness}}


def strained_host_of(wildcards):
    """The host's row for a strain, whose elastic constants may be computed ones."""
    row = host_of if elastic_source(wildcards) else elastic_host_of
    return row(wildcards)


def used_hosts():
    """The hosts of all conditions: the crystals that the split puts on one side."""
    return sorted({condition.host for condition in CONDITIONS.values()})


def preset_of(wildcards):
    """The preset of a condition, or of a host's lattice constant, where it has one of its own."""
    if hasattr(wildcards, "host"):
        return wildcards.host.partition("-")[2] or None
    return settings_of(wildcards).get("preset")


def first_principles(task):
    """What one task takes from its section of the configuration, so that an override of another one reruns nothing."""

    def chosen(wildcards):
        section = config["first_principles"]
        overrides = {
            k: v for k, v in section["overrides"].items() if k in ("electronic", task)
        }
        if task == "relax" and settings_of(wildcards).get("cell") == "relaxed":
            overrides["relax"] = {**overrides.get("relax", {}), "cell": "relaxed"}
        if task == "aimd" and (flights := settings_of(wildcards).get("flights")):
            overrides["aimd"] = {**overrides.get("aimd", {}), "flights": flights}
        preset = preset_of(wildcards) or section["preset"]
        return {"overrides": overrides, "preset": preset}

    return chosen


def entry_of(task, wildcards):
    """What the library holds of a condition's task, or of a host's lattice constant; None: to be computed."""
    host, lattice = moving_host_of(wildcards), first_principles("lattice")(wildcards)
    if task == "lattice":
        return LIBRARY.lattice(host, lattice)
    asked, settings = settings_of(wildcards), first_principles(task)(wildcards)
    if task == "relax":
        keys = ("supercell", "defect")
        search = LIBRARY.relaxation
    else:
        keys = ("supercell", "temperature", "protocol")
        search = LIBRARY.dynamics
    return search(host, *(asked[key] for key in keys), lattice, settings)


def computed(task, wildcards, *suffixes):
    """Files of a task, from the library if it has them, else to be computed: {"relax_json": path}. From the library its
    summary and log come too, so that whoever reads the result records what it came from; `trace` finds its record.
    """
    if entry := entry_of(task, wildcards):
        suffixes = {*suffixes, "json", "gpaw.txt"}
        paths = {suffix: given(str(entry.file(suffix))) for suffix in sorted(suffixes)}
    else:
        name = getattr(wildcards, "condition", None)
        if task == "lattice":
            preset = preset_of(wildcards)
            name = host_of(wildcards)["name"] + (f"-{preset}" if preset else "")
        paths = {
            suffix: f"results/first_principles/{task}/{name}.{suffix}"
            for suffix in suffixes
        }
    return {f"{task}_{k.replace('.', '_')}": path for k, path in paths.items()}


def batch(name):
    """Group of short jobs, which a cluster runs in one job; None, and nothing to plan, where no profile says how many. A
    condition after a calculation from first principles, which takes long and may fail, is apart from the others.
    """

    def group(wildcards):
        if not workflow.group_settings.group_components:
            return None
        condition = CONDITIONS.get(getattr(wildcards, "condition", None))
        computed = condition and condition.computed
        return f"{name}_computed" if computed else name

    return group


def lattice_of(wildcards):
    """The lattice constant of a condition's host, or of a host."""
    return computed("lattice", wildcards, "json")["lattice_json"]


def summary_of(task, condition):
    """The summary of a condition's task."""
    files = computed(task, SimpleNamespace(condition=condition), "json")
    return files[f"{task}_json"]


def positions_of(task, condition):
    """The structures of a condition's task, a frame for each snapshot."""
    files = computed(task, SimpleNamespace(condition=condition), "extxyz")
    return files[f"{task}_extxyz"]


def kept_record(rule, name, wildcards):
    """The record of a first-principles result that the rule would make with the same params now, else None. A damaged
    record is none: `verify` names it."""
    path = Path(f"results/first_principles/{rule}/{name}.record.json")
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
    except (ValueError, OSError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("segments", 1), int):
        return None
    params = getattr(rules, rule).params.items()
    now = {key: value(wildcards) if callable(value) else value for key, value in params}
    now = json.loads(json.dumps(now))
    return record if record.get("params", now) == now else None


def segments_of(task, wildcards):
    """Segments of a job: those in which its result was made, if that is kept, so that another number reruns nothing;
    else those of the configuration. Its record is read only where either may be more than one.
    """
    folder = Path(f"results/first_principles/{task}")
    several = (folder / f"{wildcards.condition}.segments").exists()
    if config["runtime"]["segments"] == 1 and not several:
        return 1
    record = kept_record(task, wildcards.condition, wildcards)
    lattice = Path(lattice_of(wildcards)) if record is not None else None
    if lattice is not None and lattice.is_relative_to("results"):
        host = SimpleNamespace(host=lattice.stem)
        if kept_record("lattice", lattice.stem, host) is None:
            record = None
    if record is None:
        return config["runtime"]["segments"]
    return record.get("segments", 1)


def segment_before(task):
    """The marker of the segment before this one; segments count down to the job that writes the results, 0. A job of a
    cluster, where the record may be gone already, follows the run's plan, which has put markers there or has not; all
    segments then keep their inputs, those whose markers are gone again too, else the job would run them anew.
    """

    def marker(wildcards):
        left = int(getattr(wildcards, "left", 0)) + 1
        folder = Path(f"results/first_principles/segments/{task}/{wildcards.condition}")
        if left >= segments_of(task, wildcards):
            return {}
        if not workflow.is_main_process and not any(folder.glob("*.json")):
            return {}
        return {"segment": f"{folder}/{left}.json"}

    return marker


def elastic_source(wildcards):
    """Computed elastic constants, where a strain follows from such."""
    settings = settings_of(wildcards)
    if settings.get("elastic") != "gpaw":
        return {}
    preset = f"-{settings['preset']}" if "preset" in settings else ""
    host = condition_of(wildcards).host
    return {"elastic": f"results/first_principles/elastic/{host}{preset}.json"}


def point_source(wildcards):
    """Relaxed positions where the condition has them, else the lattice parameter alone."""
    if not condition_of(wildcards).relaxed:
        files = computed("lattice", wildcards, "json")
        return {"lattice": files.pop("lattice_json"), **files}
    files = computed("relax", wildcards, "extxyz")
    return {"relaxed": files.pop("relax_extxyz"), **files}


def thermal_source(wildcards):
    """Snapshots of a thermal condition."""
    files = computed("aimd", wildcards, "extxyz")
    return {"snapshots": files.pop("aimd_extxyz"), **files}


def clean_structure_of(name):
    return f"results/structures/clean/{MATERIALS[name].space_group}/{name}.cif"


def model_of(wildcards):
    """Name, seed, pattern set, split and learning section of a model."""
    if wildcards.model not in MODELS:
        near = difflib.get_close_matches(wildcards.model, MODELS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise WorkflowError(f"no model '{wildcards.model}' in the configuration{hint}")
    return MODELS[wildcards.model]


def diffraction_of(pattern_set):
    """The section `diffraction` of a set of patterns, complete."""
    if pattern_set not in PATTERN_SETS:
        raise WorkflowError(
            f"no set of patterns '{pattern_set}' in the configuration; there are: {', '.join(PATTERN_SETS)}"
        )
    return PATTERN_SETS[pattern_set]


def diffraction_of_condition(wildcards):
    """The section `diffraction` for one condition: of thermal equilibrium the snapshots are samples of one crystal, whose
    intensities a detector adds up; of the published flights each is a case of its own.
    """
    section = diffraction_of(getattr(wildcards, "pattern_set", "main"))
    if settings_of(wildcards).get("protocol") == "equilibrated":
        return {**section, "average_snapshots": True}
    return section


def patterns_in(pattern_set, name):
    """The file of a condition, or of a clean crystal (clean/NAME), in a set of patterns."""
    return f"results/{model_table.patterns_folder(pattern_set)}/{name}.nc"


def crystals_of(wildcards):
    """The crystals that a model is trained and tested on: all, or all but the drawn ones."""
    drawn = model_of(wildcards)["split"]["drawn"]
    return [crystal for crystal in MATERIALS.values() if drawn or not crystal.drawn]


def rows_to_split(wildcards):
    """What the split of a model follows from, a mapping for each crystal."""
    return [
        {
            "material": crystal.material,
            "space_group": crystal.space_group,
            "prototype": crystal.prototype,
            "formula": crystal.formula,
            **({"drawn": True} if crystal.drawn else {}),
        }
        for crystal in sorted(crystals_of(wildcards), key=lambda one: one.material)
    ]


def clean_structures(wildcards):
    """The structure files of all clean crystals of a model."""
    return [clean_structure_of(crystal.material) for crystal in crystals_of(wildcards)]


def clean_patterns(wildcards):
    """The pattern files of all clean crystals of a model."""
    pattern_set = model_of(wildcards)["pattern_set"]
    names = (crystal.material for crystal in crystals_of(wildcards))
    return [patterns_in(pattern_set, f"clean/{name}") for name in names]


def training_memory(wildcards, attempt):
    """Main memory of a training [MB]: the images of all its crystals in half precision, and 8 GB for the rest; twice as
    much with every attempt."""
    model = model_of(wildcards)
    section = diffraction_of(model["pattern_set"])
    points = math.prod(
        len(section[key]) for key in ("zone_axes", "voltages", "camera_lengths")
    )
    drawn = config["materials"]["specimens"]
    specimens = 1 if model["learning"]["specimens"] == "block" else 1 + drawn
    crystals = len(crystals_of(wildcards))
    pixels = crystals * points * specimens * section["pixels"] ** 2
    return math.ceil(8000 + 2 * pixels / 1e6) * 2 ** (attempt - 1)


def patterns_grid(wildcards):
    """Zone axes, voltages and camera lengths of a crystal where single patterns are held out, else nothing, so that they
    do not decide about a split by crystals."""
    model = model_of(wildcards)
    if model["split"]["by"] != "image":
        return None
    section = diffraction_of(model["pattern_set"])
    return [len(section[key]) for key in ("zone_axes", "voltages", "camera_lengths")]


def predictions(model):
    """The predictions of all conditions by a model."""
    return [f"results/predictions/{model}/{name}.nc" for name in CONDITIONS]


def shown_of(pattern_set, condition):
    """The file of a condition over the zone axes that the article shows."""
    return patterns_in(pattern_set, f"shown/{condition}")


def diffraction_shown(wildcards):
    """The section `diffraction` with the zone axes that the article shows of a condition in place of all."""
    pattern_set = wildcards.folder.removeprefix("pattern_sets/")
    section = diffraction_of("main" if pattern_set == "patterns" else pattern_set)
    if wildcards.condition not in SHOWN_AXES:
        raise WorkflowError(
            f"the article shows no axes of '{wildcards.condition}' that this configuration has labels for"
        )
    return {**section, "zone_axes": SHOWN_AXES[wildcards.condition]}


def pictures_of(figure):
    """The pattern files of a figure's panels."""
    return [
        (shown_of if panel.shown else patterns_in)("main", panel.condition)
        for panel in PANELS.get(figure, [])
    ]


def crystal_of(condition):
    """Crystal structure and name of a condition's host."""
    host = HOSTS[CONDITIONS[condition].host]
    return [host.crystal_structure, host.name]


def presentation(*keys):
    """The part of the presentation that a figure follows, so that another setting does not draw it again."""
    return {key: config["presentation"][key] for key in keys}


def caption(figure):
    """The caption that the figure's own job writes, for `snakemake --report`."""
    return str(Path(f"results/figures/{figure}.rst").absolute())
