"""Every module of the library: exactly those scripts have it in their digest whose jobs an edit of it has to run again.

What follows from those jobs is in the table of docs/running.md (test_reruns.py). A new module without a row fails here.
"""

from collections import defaultdict

import pytest

from defraction import digest

# Scripts that go together, by a name for them
GROUPS = {
    "gpaw": "lattice relax aimd elastic",
    "built": "structure_strain structure_block structure_dislocation structure_twin",
    "structures": "clean_structure structure_point structure_thermal built",
    "patterns": "simulate unknown_patterns",
    "networks": "train predict predict_clean openset",
    "tables": "evaluate summarise",
    "curves": "figure_accuracy figure_strain figure_table2 figure_sweeps figure_resolution",
    "answers": "figure_calibration figure_confusion figure_ensemble figure_learning figure_mistakes figure_settings",
    "pictures": """figure_patterns figure_strain_patterns figure_thermal_patterns figure_point_patterns
        figure_interstitial figure_dislocation_patterns figure_twin_patterns figure_thermal_displacements
        figure_point_displacements""",
    "figures": "curves answers pictures",
}
# Modules by the scripts that they are behind
MODULES = {
    "": """build_command cache classify_command cli config digest doctor doctor_command environment expansion export
        inspection job model_command pictures preflight provenance provenance_command prune_command simulate_command
        first_principles/library learning/classify learning/onnx_export learning/shipping
        lineage/crate lineage/diff lineage/prov lineage/shelve lineage/study lineage/trace lineage/verify""",
    # Crystals
    "clean_structure": "drawn_crystals materials specimens",
    "structure_strain structure_dislocation": "defects/strain",
    "structure_point structure_block relax aimd": "defects/point",
    "structure_block": "defects/displacements",
    "structure_dislocation": "defects/dislocation",
    "structure_twin": "defects/twin",
    "structure_dislocation structure_twin": "defects/potentials",
    "structures patterns": "structures",
    "structures patterns relax aimd": "orientation",
    "built structure_point relax aimd conditions_table displacements pictures": "hosts",
    # First principles
    "gpaw": """first_principles/calculator first_principles/datasets first_principles/ranks first_principles/settings
        first_principles/tables first_principles/trajectory first_principles/worker""",
    "lattice": "first_principles/lattice",
    "relax": "first_principles/relax",
    "aimd": "first_principles/aimd",
    "elastic": "first_principles/elastic",
    "vacancy_energy": "first_principles/formation",
    "gpaw train": "processes",
    "displacements pictures": "site_displacements first_principles/debye",
    # Patterns
    "patterns": """diffraction/backend diffraction/convergence diffraction/direct diffraction/geometry diffraction/gpu
        diffraction/gpu_laue diffraction/gpu_planes diffraction/kernels diffraction/laue diffraction/multislice
        diffraction/patterns diffraction/planes diffraction/reflections diffraction/sampling diffraction/scattering
        diffraction/settings diffraction/specimen diffraction/spots""",
    "unknown_patterns": "unknown",
    # Learning
    "patterns split networks summarise": "pattern_files",
    "unknown_patterns split networks summarise": "dataset",
    "labels unknown_patterns split networks tables report": "learning/labels",
    "networks": "learning/model learning/resnet learning/train",
    "train": "learning/parallel learning/worker",
    "predict predict_clean": "learning/infer",
    "openset": "learning/openset",
    "models_table summarise": "models",
    # Evaluation and presentation
    "evaluate": """evaluation/calibration evaluation/credits evaluation/ensembles evaluation/evaluate
        evaluation/predictions evaluation/rows evaluation/scoring""",
    "summarise": "evaluation/comparison evaluation/summary",
    "tables": "evaluation/columns evaluation/extinction evaluation/intervals",
    "tables figures report": "evaluation/names",
    "tables displacements pictures": "tables",
    "tables displacements curves pictures": "published",
    "conditions_table figures report": "conditions",
    "figures": "figures/style",
    "curves": "figures/accuracies",
    "answers": "figures/answers",
    "pictures": "figures/crystals panels",
    "report": "report",
}


def scripts(words: str) -> set[str]:
    """Names of scripts, those of groups too."""
    return {name for word in words.split() for name in (scripts(GROUPS[word]) if word in GROUPS else {word})}


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    """Scripts by module; empty `__init__` are left out."""
    package = digest.SCRIPTS / digest.PACKAGE
    behind = defaultdict(set)
    for script in digest.SCRIPTS.glob("*.py"):
        for path in digest.file_digests(script.name):
            behind[digest.SCRIPTS.parents[1] / path].add(script.stem)
    modules = [path for path in package.rglob("*.py") if path.stat().st_size]
    return {path.relative_to(package).with_suffix("").as_posix(): behind[path] for path in modules}


def test_every_module_has_a_row(found):
    listed = [name for names in MODULES.values() for name in names.split()]
    assert sorted(listed) == sorted(found)


@pytest.mark.parametrize("words", MODULES)
def test_a_module_is_behind_its_scripts_and_no_others(found, words):
    names = MODULES[words].split()
    assert {name: found.get(name) for name in names} == dict.fromkeys(names, scripts(words))


def test_every_script_is_named():
    """So that a script cannot be left out by a group that it should belong to."""
    named = set().union(*map(scripts, [*GROUPS.values(), *MODULES]))
    assert {path.stem for path in digest.SCRIPTS.glob("*.py")} == named
