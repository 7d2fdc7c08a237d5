"""The command `defraction doctor`: is this machine fit for the coming run?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

SCHEMA = "defraction-doctor/1"
COLOURS = {"ok": "green", "warning": "yellow", "failing": "red"}


def doctor(
    config: Annotated[Path, typer.Option(help="configuration of the coming run")] = Path("config/config.yaml"),
    profile: Annotated[
        Path | None, typer.Option(help="folder of the Snakemake profile; default: profiles/default")
    ] = None,
    use_conda: Annotated[bool, typer.Option("--use-conda", help="jobs run in conda environments")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON (docs/running.md)")] = False,
) -> None:
    """Check executors, environments, GPU, PAW data, MPI, disk, memory, clock and file system, and say what to do.

    Start it in the study's folder, where Snakemake will be started. Nothing is changed. The exit status is 1 if
    something is failing.
    """
    from defraction import doctor

    folder = Path.cwd()
    study, findings = doctor.prepare(folder, config, profile)
    if use_conda:
        study.profile["use-conda"] = True
    findings += doctor.examine(study)
    fit = all(finding.state != "failing" for finding in findings)
    if as_json:
        answer = {"schema": SCHEMA, "ok": fit, "config": str(config), "findings": [asdict(f) for f in findings]}
        typer.echo(json.dumps(answer, indent=1))
    else:
        _print(findings)
    raise typer.Exit(0 if fit else 1)


def _print(findings: list) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("check", "subject", "state", "found"):
        table.add_column(name, no_wrap=name != "found", overflow="fold")
    before = None
    for finding in findings:
        text = Text(finding.found)
        if finding.state != "ok" and finding.remedy:
            text.append(f"\n→ {finding.remedy}", style="bold")
        group = finding.check if finding.check != before else ""
        table.add_row(group, finding.subject, Text(finding.state, style=COLOURS[finding.state]), text)
        before = finding.check
    console = Console()
    console.print(table)
    counts = {state: sum(f.state == state for f in findings) for state in COLOURS}
    console.print(", ".join(f"{number} {state}" for state, number in counts.items()))
