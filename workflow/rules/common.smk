# Shared by all files of rules: the checked configuration, the conditions, the crystals, digests of the code.

import difflib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The library of this clone comes first, here and in the jobs, whatever else is installed.
SCRIPTS = str(Path(workflow.current_basedir).parent / "scripts")
sys.path.insert(0, SCRIPTS)
os.environ.update(PYTHONPATH=SCRIPTS)

from defraction import config as configuration
from defraction import conditions as table
from defraction import hosts as host_table
from defraction import materials as material_table
from defraction.defects import potentials
from defraction.digest import code_digest, code_files

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


try:
    settings = configuration.validate(
        config, ", ".join(map(str, workflow.configfiles)) or "config"
    )
    HOSTS = host_table.read_hosts("resources/hosts.csv")
    CONDITIONS = table.expand(settings, HOSTS)
    potentials.check_conditions(CONDITIONS.values(), HOSTS)
    MATERIALS = material_table.catalogue(configuration.plain(settings.materials))
except (ValueError, OSError, ModuleNotFoundError) as error:
    raise WorkflowError(str(error)) from None
config.clear()
config.update(configuration.plain(settings))

MODEL = config["learning"]["architecture"]
GPU = configuration.gpus_per_job(settings.runtime)
NEEDS_ABTEM = (
    config["diffraction"]["method"] == "multislice"
    or config["diffraction"]["scattering_factors"] != "c4322"
)
FIGURES = ("accuracy", "strain", "ensemble", "patterns", "confusion", "learning")
FAMILIES = {
    "strain": r"[a-z]+-(pristine|strain-.+)",
    "point": r"[a-z]+-(perfect|vacancy|substitution|interstitial)-.+",
    "block": r"[a-z]+-(random|displaced)-.+",
    "thermal": r"[a-z]+-thermal-.+",
    "dislocation": r"[a-z]+-dislocation-.+",
    "twin": r"[a-z]+-twin(-.+)?",
}
TEMPLATE = "workflow/report/report.html.j2"
SHOWN = table.representatives(CONDITIONS)
CONDITIONS_DIGEST = table.digest(CONDITIONS)


wildcard_constraints:
    condition=r"[A-Za-z0-9.+-]+",
    material=r"[A-Za-z0-9.+-]+",
    host=r"[A-Za-z]+",
    space_group=r"\d+",
    model=r"[a-z0-9]+",


def code(script):
    """A job's own code as input: listed in records, never compared by time."""
    return ancient(code_files(script))


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


def host_of(wildcards):
    """The host's row, by condition or by name."""
    name = getattr(wildcards, "host", None) or condition_of(wildcards).host
    return asdict(HOSTS[name])


def used_hosts():
    """The hosts of all conditions: the crystals that the split puts on one side."""
    return sorted({condition.host for condition in CONDITIONS.values()})


def lattice_of(wildcards):
    return f"results/first_principles/lattice/{condition_of(wildcards).host}.json"


def first_principles(task):
    """What one task takes from its section of the configuration, so that an override of another one reruns nothing."""
    section = config["first_principles"]
    overrides = {
        k: v for k, v in section["overrides"].items() if k in ("electronic", task)
    }
    return {"overrides": overrides, "preset": section["preset"]}


def segments_of(task, condition):
    """Segments of a job: those in which a finished result was made, so that another number reruns nothing; else those of
    the configuration."""
    record = Path(f"results/first_principles/{task}/{condition}.record.json")
    if record.exists():
        return json.loads(record.read_text()).get("segments", 1)
    return config["runtime"]["segments"]


def segment_before(task):
    """The marker of the segment before this one; segments count down to the job that writes the results, 0."""

    def marker(wildcards):
        left = int(getattr(wildcards, "left", 0)) + 1
        if left >= segments_of(task, wildcards.condition):
            return {}
        return {
            "segment": f"results/first_principles/segments/{task}/{wildcards.condition}/{left}.json"
        }

    return marker


def point_source(wildcards):
    """Relaxed positions where the condition has them, else the lattice parameter alone."""
    if condition_of(wildcards).relaxed:
        return {
            "relaxed": f"results/first_principles/relax/{wildcards.condition}.extxyz"
        }
    return {"lattice": lattice_of(wildcards)}


def clean_structure_of(name):
    return f"results/structures/clean/{MATERIALS[name].space_group}/{name}.cif"


def clean_patterns(wildcards=None):
    return [f"results/patterns/clean/{name}.nc" for name in MATERIALS]


def predictions(wildcards=None):
    return [f"results/predictions/{MODEL}/{name}.nc" for name in CONDITIONS]
