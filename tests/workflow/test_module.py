"""This workflow as a module of another one, in another folder."""

import subprocess
import sys

import pytest
import yaml
from ase.build import bulk
from ase.io import write
from finished import POTENTIAL_HEAD

SNAKEFILE = """
configfile: "config.yaml"


module defraction:
    snakefile:
        {source}
    config:
        config
    replace_prefix:
        {{"resources/": "{root}/resources/", "workflow/": "{root}/workflow/"}}


use rule * from defraction
"""


@pytest.fixture
def deployed(root, tmp_path):
    config = yaml.safe_load((root / "config/smoke.yaml").read_text())
    config.setdefault("materials", {})["table"] = str(root / "resources/materials.csv")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))

    def snakemake(source, *arguments):
        (tmp_path / "Snakefile").write_text(SNAKEFILE.format(source=source, root=root))
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return snakemake


def test_a_clone_is_a_module_of_a_workflow_elsewhere(root, tmp_path, deployed):
    source = f'"{root}/workflow/Snakefile"'
    status, text = deployed(source, "--dry-run")
    assert status == 0, text
    assert "report" in text and "train" in text
    status, text = deployed(source, "--", "results/structures/al-pristine.cif")
    assert status == 0, text
    assert (tmp_path / "results/structures/al-pristine.record.json").exists()


def test_sources_of_the_calling_folder_may_lie_below_resources(root, tmp_path, deployed):
    """Whose prefix is that of the clone for the files of the workflow itself."""
    for name, element in (("own/Pd.cif", "Pd"), ("materials_project/mp-124.cif", "Ag")):
        path = tmp_path / "resources" / name
        path.parent.mkdir(parents=True)
        write(path, bulk(element, "fcc", a=4.0, cubic=True))
    (tmp_path / "resources/own.eam.fs").write_text(POTENTIAL_HEAD)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["materials"] |= {"table": None, "folder": "resources/own", "materials_project": ["mp-124"]}
    config["conditions"] = [{"kind": "twin", "host": "Al", "size": [24, 30, 20], "potential": "resources/own.eam.fs"}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    source = f'"{root}/workflow/Snakefile"'
    targets = [f"results/structures/{name}.cif" for name in ("clean/225/Pd", "clean/225/mp-124", "al-twin-relaxed")]
    status, text = deployed(source, "--dry-run", "--", *targets)
    assert status == 0, text
    for name in ("own/Pd.cif", "materials_project/mp-124.cif", "own.eam.fs"):
        assert f" resources/{name}" in text
    status, text = deployed(source, "--", targets[0])
    assert status == 0, text
    assert '"resources/own/Pd.cif"' in (tmp_path / "results/structures/clean/225/Pd.record.json").read_text()


def test_the_clone_may_lie_below_a_folder_of_the_same_name(root, tmp_path, deployed):
    """Whose library of computed structures then has paths that begin as those of the clone do."""
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/clone").symlink_to(root)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["first_principles"]["source"] = "library"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    target = "results/structures/al-vacancy-2x1x1.cif"
    status, text = deployed('"workflow/clone/workflow/Snakefile"', "--dry-run", "--", target)
    assert status == 0, text
    assert " workflow/clone/resources/structures/al-vacancy-2x1x1.extxyz" in text and "rule relax" not in text


def test_a_module_without_a_clone_says_what_to_do(root, tmp_path, deployed):
    repository = tmp_path / "repository"
    (repository / "workflow/rules").mkdir(parents=True)
    for name in ("workflow/Snakefile", *(f"workflow/rules/{p.name}" for p in (root / "workflow/rules").glob("*.smk"))):
        (repository / name).write_text((root / name).read_text())
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "test"]):
        subprocess.run([*git, *arguments], cwd=repository, check=True)
    status, text = deployed(f'gitfile("{repository}", path="workflow/Snakefile", ref="HEAD")', "--dry-run")
    assert status != 0
    assert "clone the repository" in text
