"""`footage`: the commands and how they end. Heavy libraries are imported by the command that needs them.

Exit codes: 0 all done, 1 error, 2 wrong usage, 3 finished but some videos failed, 4 another run is at work on the
archive, 5 refused to retire videos that may well be there (a person must look), 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobs import console
from jobs.build_index import build_index
from jobs.calibrate import calibrate
from jobs.compact import compact
from jobs.convert import convert
from jobs.demo import demo
from jobs.doctor import doctor
from jobs.eval_search import eval_search
from jobs.evaluate import evaluate
from jobs.examples import epilog
from jobs.export import export
from jobs.failures import failures
from jobs.finetune import finetune
from jobs.index import index
from jobs.info import info
from jobs.merge import merge
from jobs.models import models
from jobs.pretrain import pretrain
from jobs.reindex import reindex
from jobs.retry import retry
from jobs.rollback import rollback
from jobs.search import search
from jobs.serve import serve
from jobs.tag import tag
from jobs.verify import verify

ANYWHERE = ("--debug", "--log-json")

app = typer.Typer(
    name="footage",
    help="Turns a pile of video files into an archive that can be searched and tagged by what happens in it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes costs 0.2 s of imports, more than all the rest of it
)


def _tell_version(is_asked: bool) -> None:
    """Prints the version and ends."""
    if is_asked:
        from importlib import metadata  # 5 ms that nobody else needs

        typer.echo(f"footage {metadata.version('footage')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log as JSON lines on stderr, with no progress bar; or FOOTAGE_LOG=json.")
    ] = False,
    version: Annotated[  # noqa: ARG001  # its callback has told it
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Turns a pile of video files into an archive that can be searched and tagged by what happens in it."""
    console.set_up(debug=debug, as_json=log_json)


for command in (
    index,
    reindex,
    search,
    serve,
    tag,
    calibrate,
    export,
    info,
    failures,
    retry,
    verify,
    doctor,
    build_index,
    compact,
    merge,
    rollback,
    models,
    convert,
    finetune,
    evaluate,
    eval_search,
    demo,
    pretrain,
):
    name = command.__name__.replace("_", "-")
    app.command(name, epilog=epilog(name))(command)


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Options of all commands are moved to the front, where the parser wants them."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    moved = [*(each for each in ANYWHERE if each in given), *(each for each in given if each not in ANYWHERE)]
    sys.exit(console.run(lambda: app(moved, prog_name=app.info.name), debug=debug))


if __name__ == "__main__":
    main()
