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


def test_the_catalog_file_claims_what_is_tested(root):
    usage = yaml.safe_load((root / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {
        "conda": True,  # tests/conda
        "apptainer": False,
        "apptainer+conda": False,
        "report": True,
    }
    assert usage["report"] is True
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
