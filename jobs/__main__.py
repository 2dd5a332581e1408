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
from jobs.export import export
from jobs.failures import failures
from jobs.finetune import finetune
from jobs.index import index
from jobs.info import info
from jobs.models import models
from jobs.pretrain import pretrain
from jobs.reindex import reindex
from jobs.retry import retry
from jobs.rollback import rollback
from jobs.search import search
from jobs.serve import serve
from jobs.tag import tag
from jobs.verify import verify

app = typer.Typer(
    name="footage",
    help="Turns a pile of video files into an archive that can be searched and tagged by what happens in it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes costs 0.2 s of imports, more than all the rest of it
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Turns a pile of video files into an archive that can be searched and tagged by what happens in it."""
    console.quiet_libraries(debug=debug)


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
    rollback,
    models,
    convert,
    finetune,
    evaluate,
    eval_search,
    demo,
    pretrain,
):
    app.command()(command)


def main(arguments: list[str] | None = None) -> None:
    """The entry point. `--debug` is moved to the front, where the parser wants it."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    moved = ["--debug"] * debug + [argument for argument in given if argument != "--debug"]
    sys.exit(console.run(lambda: app(moved), debug=debug))


if __name__ == "__main__":
    main()
