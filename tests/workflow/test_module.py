"""This workflow as a module of another one, in another folder."""

import subprocess
import sys

import pytest
import yaml

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
