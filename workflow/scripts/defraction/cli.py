"""The `defraction` command."""

import json
from pathlib import Path
from typing import Annotated

import typer

from defraction import simulate_command

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__, rich_markup_mode=None
)


def main() -> None:
    """Run the command; faults in the user's input end with one line and exit status 2."""
    try:
        app()
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        typer.echo(f"defraction: {error}", err=True)
        raise SystemExit(2) from None


@app.command()
def preflight(config: Annotated[Path, typer.Option(help="configuration of the coming run")]) -> None:
    """Check a configuration and clear what a killed run left; refuses while such a run still writes."""
    from defraction import conditions, hosts, materials, preflight
    from defraction import config as schema
    from defraction.defects import potentials

    settings = schema.load(config)
    table = hosts.read_hosts(Path("resources/hosts.csv"))
    potentials.check_conditions(conditions.expand(settings, table).values(), table)
    materials.catalogue(schema.plain(settings.materials))
    for line in preflight.clear(Path.cwd(), ["--configfile", str(config)]):
        typer.echo(f"defraction: {line}")


@app.command()
def trace(
    file: Annotated[Path, typer.Argument(help="a result")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print what made a result, and what made that, back to the sources."""
    from defraction import provenance

    records = _records()
    tree = provenance.trace(records, str(file))
    typer.echo(json.dumps(tree, indent=1) if as_json else "\n".join(provenance.draw(tree)))


@app.command()
def cost() -> None:
    """Print what the jobs behind the present results cost, by rule."""
    from defraction import provenance

    rows = provenance.cost(_records())
    typer.echo(f"{'rule':24}{'jobs':>6}{'CPU [s]':>10}{'wall [s]':>10}{'memory [MiB]':>14}")
    for row in rows:
        typer.echo(
            f"{row['rule']:24}{row['jobs']:6d}{row['cpu_seconds']:10.0f}{row['seconds']:10.0f}{row['max_rss_mib']:14.0f}"
        )
    typer.echo(f"{'all':24}{sum(r['jobs'] for r in rows):6d}{sum(r['cpu_seconds'] for r in rows):10.0f}")


@app.command()
def verify() -> None:
    """Hash every recorded file again and name what changed."""
    from defraction import provenance

    records = _records()
    faults = provenance.verify(records)
    typer.echo("\n".join(faults) if faults else f"{len(records)} records: every file is as it was recorded")
    raise typer.Exit(1 if faults else 0)


app.command(cls=simulate_command.GroupedCommand)(simulate_command.simulate)
app.command()(simulate_command.reflections)


def _records() -> list[dict]:
    from defraction import provenance

    if records := provenance.read_records():
        return records
    raise ValueError("no records below results/; run the study first, and start this in its folder")


if __name__ == "__main__":
    main()
