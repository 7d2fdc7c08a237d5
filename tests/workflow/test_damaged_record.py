"""A record that was cut or overwritten stops no plan: the segments are then those of the configuration."""

import pytest
import yaml
from finished import Planner, copy_workflow, planned_jobs

STEM = "results/first_principles/relax/al-vacancy-2x1x1"
SETTINGS = {"runtime": {"segments": 3, "walltime": 3600.0}}


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    planner = Planner(tmp_path_factory.mktemp("planner"))
    yield planner
    planner.close()


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "defraction"
    copy_workflow(root, folder)
    raw = yaml.safe_load((folder / "config/reruns.yaml").read_text())
    (folder / "config/reruns.yaml").write_text(yaml.safe_dump(raw | SETTINGS))
    (folder / STEM).parent.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "record",
    [b'{"params": {"code": "4e51', b"", b"\xff\xfe\x00", b"[1, 2]", b"null", b'{"segments": "four"}', None],
    ids=["cut", "empty", "binary", "list", "null", "no number", "folder"],
)
def test_a_damaged_record_is_none(planner, folder, record):
    path = folder / f"{STEM}.record.json"
    path.unlink(missing_ok=True)
    path.mkdir() if record is None else path.write_bytes(record)
    text = planner.run(folder, "--configfile", "config/reruns.yaml", "--cores", "1", "--dry-run", "--", f"{STEM}.json")
    jobs = planned_jobs(text)
    assert jobs["relax"] == ["al-vacancy-2x1x1"] and len(jobs["relax_segment"]) == 2


def test_a_whole_record_is_followed(planner, folder):
    """What the cases above differ from: the result in one segment stays in one."""
    path = folder / f"{STEM}.record.json"
    path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    constant = folder / "results/first_principles/lattice"
    constant.mkdir()
    for record in (path, constant / "Al.record.json"):
        record.write_text("{}")
    text = planner.run(folder, "--configfile", "config/reruns.yaml", "--cores", "1", "--dry-run", "--", f"{STEM}.json")
    assert "relax_segment" not in planned_jobs(text)
