"""What the Snakemake workflow catalog asks of a workflow with standardised usage, as its README says it.

Linting and formatting, which it shows too, are part of `make test`.
"""

import yaml


def test_files_are_where_the_catalog_looks(root):
    readme = (root / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    assert list((root / "workflow/rules").glob("*.smk"))
    for name in ("workflow/Snakefile", "config/README.md", "config/config.yaml", "LICENSE"):
        assert (root / name).stat().st_size > 100, name


def test_the_catalog_file_claims_what_the_rules_do(root):
    usage = yaml.safe_load((root / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    rules = {path.name: path.read_text() for path in (root / "workflow/rules").glob("*.smk")}
    directives = {line.strip() for text in rules.values() for line in text.splitlines()}
    images = bool(directives & {"container:", "containerized:"})
    reported = any("=report(" in text for text in rules.values())
    assert usage["software-stack-deployment"] == {
        "conda": "conda:" in directives and (root / "tests/conda/test_use_conda.py").is_file(),
        "apptainer": images,
        "apptainer+conda": images,
        "report": reported,
    }
    assert usage["report"] is reported


def test_who_would_deploy_it_by_snakedeploy_is_told_that_it_does_not_do(root):
    """In all three places where one meets it; tests/workflow/test_module.py tries it."""
    flags = yaml.safe_load((root / ".snakemake-workflow-catalog.yml").read_text())["usage"]["mandatory-flags"]
    assert flags["flags"] == "" and "Clone the repository" in flags["desc"] and "snakedeploy" in flags["desc"]
    for name in ("README.md", "docs/running.md"):
        text = " ".join((root / name).read_text().split())
        assert "`snakedeploy deploy-workflow`" in text and "clone" in text, name
