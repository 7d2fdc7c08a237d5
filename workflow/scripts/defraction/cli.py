"""The `defraction` command."""

from pathlib import Path
from typing import Annotated

import typer

from defraction import (
    build_command,
    classify_command,
    doctor_command,
    model_command,
    provenance_command,
    prune_command,
    simulate_command,
)

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
    from defraction import config as schema
    from defraction import expansion, hosts, materials, preflight
    from defraction.defects import potentials

    settings = schema.load(config)
    table = hosts.read_hosts(Path("resources/hosts.csv"))
    potentials.check_conditions(expansion.expand(settings, table).values(), table)
    materials.catalogue(schema.plain(settings.materials))
    for line in preflight.clear(Path.cwd(), ["--configfile", str(config)]):
        typer.echo(f"defraction: {line}")


app.command()(doctor_command.doctor)
app.command(cls=build_command.BuildCommand)(build_command.build)
app.command(cls=simulate_command.GroupedCommand)(simulate_command.simulate)
app.command()(simulate_command.reflections)
app.command()(classify_command.classify)
app.command()(model_command.export_model)
app.command()(model_command.export_onnx)
for command in (provenance_command.trace, provenance_command.verify, provenance_command.diff, provenance_command.cost):
    app.command()(command)
app.command()(prune_command.prune)
app.add_typer(provenance_command.export, name="export")
app.add_typer(provenance_command.cache, name="cache")


if __name__ == "__main__":
    main()
