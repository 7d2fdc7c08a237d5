"""A potential file of one's own is an input of the job that relaxes with it: recorded, and told of by its name."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from defraction import config, expansion, hosts, provenance
from defraction.conditions import digest, read_table, write_table
from defraction.defects import potentials

PROGRAM = """
import json, sys
__file__ = "structure_twin.py"
sys.path.insert(0, {scripts!r})
from types import SimpleNamespace

class Names(dict):
    __getattr__ = dict.__getitem__

from defraction.digest import code_digest
given = json.loads({given!r})
snakemake = SimpleNamespace(
    rule="structure_twin", wildcards=Names(condition="al-twin-relaxed"), threads=1, log=["logs/twin.log"],
    input=Names(given["input"]), params=Names(code=code_digest(__file__), **given["params"]),
    config={{"runtime": {{}}}}, output=Names(cif="twin.cif", extxyz="twin.extxyz", record="twin.record.json"))
exec(open({scripts!r} + "/structure_twin.py").read())
"""


@pytest.fixture
def own_file(tmp_path, table):
    """A published potential under a name of the user's own, in a folder of theirs."""
    try:
        shipped = potentials.find_potential("default", table["Al"]).path
    except ValueError as error:
        pytest.skip(str(error))
    path = tmp_path / "private" / "mine.eam.fs"
    path.parent.mkdir()
    path.write_bytes(shipped.read_bytes())
    return path


@pytest.fixture
def table(root):
    return hosts.read_hosts(root / "resources/hosts.csv")


@pytest.fixture
def twin(own_file, table):
    entry = {"kind": "twin", "host": "Al", "size": [16, 20, 12], "rim": 0, "fmax": 0.5, "potential": str(own_file)}
    return expansion.expand(config.validate({"conditions": [entry]}), table)


def test_the_job_records_the_file_and_lammps(own_file, twin, table, tmp_path, root):
    settings = {**twin["al-twin-relaxed"].settings, "potential": own_file.name}
    given = {"input": {"potential": str(own_file)}, "params": {"settings": settings, "host": asdict(table["Al"])}}
    text = PROGRAM.format(scripts=str(root / "workflow/scripts"), given=json.dumps(given))
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, (tmp_path / "logs/twin.log").read_text()
    record = provenance.read_record(tmp_path / "twin.record.json")
    (item,) = record["inputs"]
    assert item["role"] == "potential" and item["sha256"] == provenance.sha256(own_file)
    assert record["environment"]["packages"]["lammps"]["version"]
    for name in ("twin.cif", "twin.extxyz"):
        assert "mine.eam.fs" in (tmp_path / name).read_text() and "private" not in (tmp_path / name).read_text()


def test_the_table_of_conditions_has_its_name(twin, tmp_path):
    write_table(twin, tmp_path / "conditions.csv")
    assert read_table(tmp_path / "conditions.csv")["al-twin-relaxed"].settings["potential"] == "mine.eam.fs"
    assert "private" not in (tmp_path / "conditions.csv").read_text()


def test_the_digest_of_the_table_is_that_of_what_it_says(table, tmp_path):
    """The same file in another folder is the same table; whatever else differs in the table differs in its digest."""
    entries = [
        {"kind": "twin", "host": "Al", "size": [16, 20, 12]},
        {"kind": "vacancy", "host": "Al", "supercell": [2, 1, 1]},
    ]
    conditions = expansion.expand(config.validate({"conditions": entries}), table)
    twin = conditions["al-twin"]
    texts, digests = [], []
    for potential in ("mine.eam.fs", "private/mine.eam.fs", "/elsewhere/mine.eam.fs", "other.eam.fs", None):
        changed = replace(twin, settings={**twin.settings, "potential": potential})
        write_table(conditions | {"al-twin": changed}, tmp_path / "conditions.csv")
        texts.append((tmp_path / "conditions.csv").read_text())
        digests.append(digest(conditions | {"al-twin": changed}))
        assert changed.settings["potential"] == potential
    assert [texts.index(text) for text in texts] == [digests.index(value) for value in digests] == [0, 0, 0, 3, 4]
