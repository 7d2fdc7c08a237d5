"""What every rule has to declare, so that reruns stay exact and records complete."""

import ast
import re
import sys

import pytest
import yaml

from defraction.digest import code_files


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


def test_environment_files_pin_every_package(root):
    files = list((root / "workflow/envs").glob("*.yaml"))
    used = {m for body in rules(root).values() for m in re.findall(r"envs/(\w+)\.yaml", body)}
    assert used == {f.stem for f in files}
    for file in files:
        for entry in yaml.safe_load(file.read_text())["dependencies"]:
            names = entry["pip"] if isinstance(entry, dict) else [entry]
            assert all("=" in n or n in ("pip", "openblas", "cxx-compiler") for n in names), (file.name, names)


def test_environments_hold_what_their_scripts_import(root, bodies):
    conda = {"yaml": "pyyaml", "netCDF4": "netcdf4", "torch": "pytorch"}
    optional = {"cupy", "cupyx", "mp_api", "abtem"}  # abtem: only in multislice.yaml
    for name, body in bodies.items():
        script = re.search(r"scripts/(\w+\.py)", body)[1]
        imported = set()
        for file in code_files(script):
            for node in ast.walk(ast.parse((root / file).read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(node.module.split(".")[0])
        foreign = imported - set(sys.stdlib_module_names) - optional - {"defraction"}
        for environment in re.findall(r"envs/(\w+\.yaml)", body):
            entries = yaml.safe_load((root / "workflow/envs" / environment).read_text())["dependencies"]
            listed = [n for e in entries for n in (e["pip"] if isinstance(e, dict) else [e])]
            packages = {re.split(r"[ =<>]", n)[0] for n in listed}
            assert {conda.get(m, m) for m in foreign} <= packages, (name, environment)
            assert "abtem" in packages or environment != "multislice.yaml"
