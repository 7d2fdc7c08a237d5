"""Tells the params and input files of every job that a configuration asks for, without planning.

Runs in the folder of the workflow. Reads the name of a configuration per line and answers with {"RULE WILDCARDS":
[params, input files]} as JSON, or with {"error": message} for one that is refused. The Snakefile is translated to
Python and the package imported once, so that a configuration is a matter of a tenth of a second.
"""

import contextlib
import io
import itertools
import json
import sys
from pathlib import Path

import snakemake.cli  # before its parts, which import each other
import snakemake.workflow
from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

parse, parsed = snakemake.workflow.parse, {}


def parse_once(path, workflow, linemap, rulecount=0):
    key = path.get_path_or_uri(secret_free=True), rulecount
    if key not in parsed:
        parsed[key] = parse(path, workflow, linemap=linemap, rulecount=rulecount)
    return parsed[key]


def jobs(workflow) -> dict[str, list]:
    """All jobs below `all`, and those asked for by name (elastic constants, energies of vacancies)."""
    known = workflow.globals
    sets = [name for name in known["PATTERN_SETS"] if name != "main"]
    values = {
        "condition": known["CONDITIONS"],
        "material": known["MATERIALS"],
        "model": known["MODELS"],
        "pattern_set": sets,
        "folder": ["patterns", *(f"pattern_sets/{name}" for name in sets)],
        "host": sorted({condition.host for condition in known["CONDITIONS"].values()}),
        "left": ["1"],
    }
    found = {}
    for rule in workflow.rules:
        names = sorted(rule.wildcard_names - {"space_group"})
        for chosen in itertools.product(*(values[name] for name in names)):
            wildcards = dict(zip(names, chosen, strict=True))
            if "shown" in rule.name and wildcards["condition"] not in known["SHOWN_AXES"]:
                continue
            if "space_group" in rule.wildcard_names:
                wildcards["space_group"] = str(known["MATERIALS"][wildcards["material"]].space_group)
            given = Wildcards(fromdict=wildcards)
            if wildcards.get("condition", "").endswith("-unrelaxed") and rule.name.startswith("relax"):
                continue
            if names and not rule.is_producer(str(rule.output[0].apply_wildcards(given))):
                continue  # a condition of another family
            params = {key: value(given) if callable(value) else value for key, value in rule.params.items()}
            inputs = rule.expand_input(given)[0]
            found[" ".join([rule.name, *chosen])] = [params, sorted(map(str, inputs))]
    return found


def answer(name: str) -> dict:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            with SnakemakeApi(OutputSettings()) as api:
                chosen = {
                    "resource_settings": ResourceSettings(cores=1),
                    "config_settings": ConfigSettings(configfiles=[Path(name)]),
                }
                return jobs(api.workflow(snakefile=Path("Snakefile"), **chosen)._workflow)
        except WorkflowError as error:
            return {"error": str(error)}


if __name__ == "__main__":
    snakemake.workflow.parse = parse_once
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)
