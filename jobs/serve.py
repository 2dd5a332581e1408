"""`footage serve`: an archive over HTTP, with a page to search it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import console
from jobs.arguments import ArchivePlace
from pipeline.interrupts import Stopped
from schemas.errors import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from jobs.web.guard import App
    from jobs.web.limits import Limits
    from pipeline.label_sets import LabelSet
    from pipeline.text_batches import TextEncoder

TOKEN_VARIABLE = "FOOTAGE_TOKEN"  # noqa: S105
LEAST_TOKEN = 16
PLAIN = re.compile(r"[0-9A-Za-z._~+/=-]+")  # what a header and a cookie can hold
MISSING = "footage serve needs more libraries ({}); install them with: pip install 'footage[serve]'"


def serve(
    archive: ArchivePlace,
    host: Annotated[str, typer.Option(help="The address to listen at; this machine alone unless given.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.", min=0, max=65535)] = 8080,
    labels: Annotated[list[Path] | None, typer.Option(help="A label set for /classify, named as the file.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if it was moved.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: auto, cpu or cuda.")] = "auto",
    at_a_time: Annotated[int, typer.Option(help="Questions computed at a time; as many again wait.", min=1)] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds that an answer may take.", min=0.1)] = 60.0,
    refresh: Annotated[float, typer.Option(help="Seconds between looks for a newer version.", min=0.1)] = 2.0,
    replicas: Annotated[
        int | None, typer.Option(help="Processes of Ray Serve that answer; one, without Ray, unless given.", min=1)
    ] = None,
    batch: Annotated[int, typer.Option(help="Questions whose texts a replica encodes together.", min=1)] = 32,
) -> None:
    """Serve the archive: an HTTP API and a page to search it with.

    Beyond this machine (--host) every request must carry a token, which is taken from FOOTAGE_TOKEN.
    """
    try:
        from jobs.web.limits import LOOPBACK_HOSTS, Limits
        from jobs.web.server import run
    except ImportError as error:
        raise InputError(MISSING.format(error.name)) from error

    token = token_for(host)
    hosts = LOOPBACK_HOSTS | {host} if token is None else None
    limits = Limits(token=token, hosts=hosts, at_a_time=at_a_time, seconds=timeout)
    listener = listen(host, port)
    asked = AppArguments(archive, model, device, limits, _label_sets(labels or []), refresh)
    with _app(asked) if replicas is None else _replicated(asked, replicas, batch) as app:
        where = listener.getsockname()
        url_host = f"[{where[0]}]" if ":" in where[0] else where[0]
        console.messages().print(f"serving {archive} at http://{url_host}:{where[1]}  (Ctrl-C ends it)", soft_wrap=True)
        try:
            run(app, listener, lifespan=replicas is None)  # replicas each have their own
        except Stopped as stop:
            raise Stopped(stop.signum, "the server has ended") from None


@dataclass(frozen=True, slots=True)
class AppArguments:
    """What an app is made of, here or in another process."""

    archive: str
    model: str | None
    device: str
    limits: Limits
    label_sets: Mapping[str, LabelSet]
    refresh_s: float


def _label_sets(files: list[Path]) -> dict[str, LabelSet]:
    """Label sets by the names of their files."""
    from pipeline.label_files import read_labels

    return {file.stem: read_labels(file) for file in files}


@contextmanager
def _app(asked: AppArguments) -> Iterator[App]:
    """The app over an archive that is opened now."""
    from xclip_core import encode_text_raw

    app = create(asked, encode_text_raw)
    console.caution(app.state.service.current.opened.notes)
    yield app


def create(asked: AppArguments, encode: TextEncoder) -> FastAPI:
    """The app, with what texts of questions are encoded by."""
    from jobs.web.app import create_app
    from pipeline.service import Service

    service = Service(asked.archive, model=asked.model, device=asked.device, encode=encode)
    return create_app(service, limits=asked.limits, label_sets=asked.label_sets, refresh_s=asked.refresh_s)


@contextmanager
def _replicated(asked: AppArguments, replicas: int, batch: int) -> Iterator[App]:
    """What asks so many replicas of the app."""
    from jobs.web.front import Front
    from jobs.web.guard import Guard, Metrics
    from jobs.web.replicas import running
    from pipeline import serving

    os.environ.pop(TOKEN_VARIABLE, None)  # replicas are handed it, and other processes of Ray have no use for it
    # Here too, for a moment: what is wrong with the archive is told as it is without replicas.
    console.caution(serving.open_space(asked.archive, asked.model).notes)
    limits = replace(asked.limits, at_a_time=asked.limits.at_a_time * replicas)
    there = replace(
        asked, archive=_absolute(asked.archive), model=asked.model and _absolute(asked.model), limits=limits
    )
    on_gpu = asked.device != "cpu"
    with running(partial(create, there), replicas=replicas, batch=batch, on_gpu=on_gpu) as ask:
        metrics = Metrics()
        yield Guard(Front(ask, metrics, limits.seconds), limits, metrics)


def _absolute(place: str) -> str:
    """A place that processes with another working folder find; names and addresses are left as they are."""
    return str(Path(place).absolute()) if Path(place).exists() else place


def token_for(host: str) -> str | None:
    """The token that requests must carry. Raises InputError where one is needed and there is none worth the name."""
    from jobs.web.limits import is_loopback

    token = os.environ.get(TOKEN_VARIABLE)
    if token is None and is_loopback(host):
        return None
    if token is None or len(token) < LEAST_TOKEN or not PLAIN.fullmatch(token):
        raise InputError(
            f"who reaches {host} could read every video of the archive; expected a token of at least {LEAST_TOKEN} "
            f"letters, digits and -_. in {TOKEN_VARIABLE} "
            "(python -c 'import secrets; print(secrets.token_urlsafe())' makes one)"
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket bound before the model is loaded, so that a port that is taken is told at once. Raises InputError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _not_there(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # who asks from now on waits for the model, and is not refused
    except OSError as error:
        listener.close()
        raise _not_there(host, port, error) from error
    return listener


def _not_there(host: str, port: int, error: OSError) -> InputError:
    return InputError(f"cannot listen at {host}:{port}: {error.strerror}; expected another --host or --port")
