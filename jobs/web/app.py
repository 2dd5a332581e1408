"""The API and the page as one ASGI app: a thin skin over `pipeline.service`.

Each request takes the service's snapshot once and is answered out of it. Errors are problem+json (RFC 9457) and tell
what was given and what was expected; a bug is a 500 without a word of its cause, which is in the log.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, File, Form, Query, Request, UploadFile
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from jobs.web import answers, media
from jobs.web.answers import Problem
from jobs.web.guard import COOKIE, Guard, Metrics, problem
from jobs.web.limits import Limits
from pipeline import filters, logs, queries
from pipeline.label_sets import LabelSet
from pipeline.moments import Grouping
from pipeline.preview import MOST_LENGTH_S, Previews
from pipeline.queries import Known, Phrase, Still
from pipeline.search import SearchSettings
from pipeline.service import Service, Snapshot, checked_labels
from pipeline.versions import versions
from schemas.errors import FootageError, InputError, NotFound, VideoError

LOG = logs.logger("serve")
VideoId = Annotated[str, InPath(pattern=answers.VIDEO_ID)]
ClipId = Annotated[str, InPath(pattern=answers.CLIP_ID)]
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (400, 401, 404, 413, 422, 429)
}
DAY_S = 86_400
IMAGE_BYTES = 10 << 20
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

Text = Annotated[str, Query(max_length=1_000)]
Answered = TypeVar("Answered")


def create_app(
    service: Service,
    *,
    limits: Limits | None = None,
    label_sets: Mapping[str, LabelSet] | None = None,
    refresh_s: float = 2.0,
) -> FastAPI:
    """The app. A thread looks for a newer version of the archive every `refresh_s` while it runs."""
    limits = limits or Limits()
    stop = threading.Event()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watcher = threading.Thread(target=_watch, args=(service, stop, refresh_s), name="refresh", daemon=True)
        with tempfile.TemporaryDirectory(prefix="footage-previews-", ignore_cleanup_errors=True) as folder:
            app.state.previews = Previews(Path(folder))
            watcher.start()
            try:
                yield
            finally:
                stop.set()

    app = FastAPI(
        title="footage",
        version=versions()["footage"],
        description="Search and tag an archive of videos by what happens in them.",
        lifespan=lifespan,
        responses=PROBLEMS,
        docs_url=None,
        redoc_url=None,  # both load scripts from elsewhere
    )
    app.state.service, app.state.limits = service, limits
    app.state.label_sets = dict(label_sets or {})
    app.state.metrics = Metrics()
    app.include_router(router)
    app.mount("/static", StaticFiles(packages=[("jobs.web", "static")]), name="static")
    _handle_errors(app)
    app.add_middleware(partial(Guard, limits=limits, metrics=app.state.metrics))
    return app


def _watch(service: Service, stop: threading.Event, every_s: float) -> None:
    """Opens newer versions until told to stop. One that cannot be opened now is tried again."""
    while not stop.wait(every_s):
        try:
            if service.refresh():
                version = service.current.version
                LOG.info("now serving version %s", version, extra=logs.fields(space=version[0], version=version[1:]))
        except (FootageError, OSError) as error:
            LOG.warning("a newer version cannot be opened: %s", error)


# --- errors


def _handle_errors(app: FastAPI) -> None:
    handlers: dict[type[Exception], Callable[[Exception], tuple[int, str, str]]] = {
        NotFound: lambda error: (404, "Not Found", str(error)),
        VideoError: lambda error: (404, "Not Found", f"the video cannot be read: {error}"),
        InputError: lambda error: (400, "Bad Request", str(error)),
        FootageError: lambda error: (409, "Conflict", str(error)),
        TimeoutError: lambda _: (503, "Service Unavailable", "the answer took too long; ask for less"),
        RequestValidationError: lambda error: (422, "Unprocessable Content", _what_is_wrong(error)),
    }
    for kind, told in handlers.items():
        app.add_exception_handler(kind, partial(_problem_response, told))
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _bug)


async def _problem_response(
    told: Callable[[Exception], tuple[int, str, str]], request: Request, error: Exception
) -> Response:
    status, title, detail = told(error)
    more: dict[str, Any] = {}
    if isinstance(error, InputError) and "where" in request.query_params:
        more["columns"] = filters.column_names()
    return _respond(problem(status, title, detail, **more), {"retry-after": "1"} if status == 503 else None)


async def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _respond(problem(error.status_code, "Error", str(error.detail)), dict(error.headers or {}))


async def _bug(request: Request, error: Exception) -> Response:
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _respond(problem(500, "Internal Server Error", "this is a bug of the server; its log has more"))


def _respond(said: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(said, said["status"], headers, media_type="application/problem+json")


def _what_is_wrong(error: Exception) -> str:
    """The first thing that is wrong with a request, in a sentence."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return f"{where}: {first['msg']}"


# --- routes

router = APIRouter()


def _snapshot(request: Request) -> Snapshot:
    snapshot: Snapshot = request.app.state.service.current
    return snapshot


async def _within(request: Request, work: Callable[[], Answered]) -> Answered:
    """What some work gives, done in a thread. Raises TimeoutError where it takes too long."""
    return await asyncio.wait_for(asyncio.to_thread(work), request.app.state.limits.seconds)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """The page."""
    return Response(resources.files("jobs.web").joinpath("static", "index.html").read_bytes(), media_type="text/html")


Texts = Annotated[list[Text], Query(max_length=16)]


def _settings(limits: Limits, top: int, page: int, grouping: Grouping | None, **more: Any) -> SearchSettings:
    """Which part of the answer is shown. Raises InputError for more than the server allows."""
    if top > limits.top or top * page > limits.depth:
        raise InputError(
            f"page {page} of {top} is beyond what this server gives; expected top up to {limits.top} and hits up to "
            f"{limits.depth}: narrow the search"
        )
    return SearchSettings(top=top, page=page, grouping=grouping, **more)


def _query(texts: list[str], unwanted: list[str], clip_ids: list[str], stills: tuple[Still, ...] = ()) -> queries.Query:
    return queries.Query(
        phrases=tuple(Phrase((text,)) for text in texts),
        stills=stills,
        known=tuple(Known(clip_id) for clip_id in clip_ids),
        unwanted=tuple(Phrase((text,), queries.UNWANTED_WEIGHT) for text in unwanted),
    )


@router.get("/search", response_model=answers.SearchAnswer)
async def search(  # each is a parameter of the URL
    request: Request,
    q: Annotated[Text | None, Query(description="What to look for.", examples=["a dog runs"])] = None,
    and_: Annotated[Texts, Query(alias="and")] = [],  # noqa: B006  # FastAPI copies it
    not_: Annotated[Texts, Query(alias="not")] = [],  # noqa: B006
    like_clip: Annotated[Texts, Query(description="Ids of clips to be like.")] = [],  # noqa: B006
    where: Annotated[str | None, Query(max_length=2_000, examples=["duration_s > 60 and label = 'juggling'"])] = None,
    top: Annotated[int, Query(ge=1)] = 24,
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    per_video: Annotated[int, Query(ge=0, le=1_000)] = 3,
    min_score: float | None = None,
    *,
    rerank: bool = True,
    clips: bool = False,
) -> answers.SearchAnswer:
    """Moments that fit texts and clips best."""
    limits = request.app.state.limits
    grouping = None if clips else Grouping(per_video=per_video)
    settings = _settings(limits, top, page, grouping, rerank=rerank, min_score=min_score)
    query = _query([*([q] if q is not None else []), *and_], not_, like_clip)
    answer = await _within(request, partial(_snapshot(request).ask, query, settings, where))
    return answers.search_answer(answer)


@router.post("/search", response_model=answers.SearchAnswer)
async def search_by_picture(
    request: Request,
    image: Annotated[UploadFile, File(description="PNG, JPEG or WebP.")],
    q: Annotated[str | None, Form(max_length=1_000)] = None,
    not_: Annotated[list[str], Form(alias="not", max_length=16)] = [],  # noqa: B006
    where: Annotated[str | None, Form(max_length=2_000)] = None,
    top: Annotated[int, Form(ge=1)] = 24,
    page: Annotated[int, Form(ge=1, le=100_000)] = 1,
    per_video: Annotated[int, Form(ge=0, le=1_000)] = 3,
) -> answers.SearchAnswer:
    """Moments that look like a picture, and fit a text if there is one."""
    content = await image.read(IMAGE_BYTES + 1)
    if len(content) > IMAGE_BYTES:
        raise HTTPException(413, f"the picture has over {IMAGE_BYTES} bytes; expected a smaller one")
    settings = _settings(request.app.state.limits, top, page, Grouping(per_video=per_video))
    snapshot = _snapshot(request)

    def work() -> answers.SearchAnswer:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"picture{SUFFIXES.get(image.content_type or '', '')}"
            file.write_bytes(content)
            query = _query([q] if q else [], not_, [], (Still(file),))
            return answers.search_answer(snapshot.ask(query, settings, where))

    answer = await _within(request, work)
    return answer.model_copy(update={"query": " ".join(filter(None, [q, "like a picture"]))})


@router.post("/classify", response_model=answers.Classified)
async def classify(request: Request, asked: answers.ClassifyRequest) -> answers.Classified:
    """Labels of a clip, a video, or a part of one, by the model's own score."""
    labels = _labels_of(request, asked)
    snapshot = _snapshot(request)
    if (asked.clip_id is None) == (asked.video_id is None):
        raise InputError("expected a clip_id or a video_id, and not both")

    def work() -> list[dict[str, Any]]:
        return snapshot.classify(labels, [asked.clip_id] if asked.clip_id is not None else _clip_ids(snapshot, asked))

    found = await _within(request, work)
    return answers.Classified(labels=[answers.LabelScore(**label) for label in found])


def _labels_of(request: Request, asked: answers.ClassifyRequest) -> LabelSet:
    sets: dict[str, LabelSet] = request.app.state.label_sets
    if (asked.labels is None) == (asked.set is None):
        raise InputError("expected labels or the name of a set, and not both")
    if asked.labels is not None:
        return checked_labels(asked.labels)
    if asked.set not in sets:
        known = ", ".join(sets) or "none; start the server with --labels FILE"
        raise InputError(f"there is no label set {asked.set!r}; expected one of: {known}")
    return sets[asked.set]


def _clip_ids(snapshot: Snapshot, asked: answers.ClassifyRequest) -> list[str]:
    """Clips of a video that overlap a span."""
    assert asked.video_id is not None
    first_s, last_s = asked.start_s or 0.0, float("inf") if asked.end_s is None else asked.end_s
    clips = snapshot.clips_of(snapshot.video(asked.video_id))
    return [clip["clip_id"] for clip in clips if clip["end_s"] > first_s and clip["start_s"] < last_s]


@router.get("/videos", response_model=answers.VideoPage)
async def videos(
    request: Request,
    q: Annotated[str, Query(max_length=200, description="A part of the name.")] = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    top: Annotated[int, Query(ge=1)] = 50,
) -> answers.VideoPage:
    """Videos, newest first."""
    limits = request.app.state.limits
    if top > limits.top:
        raise InputError(f"{top} videos are more than this server lists at a time; expected up to {limits.top}")
    snapshot = _snapshot(request)

    def work() -> answers.VideoPage:
        rows, total = snapshot.page_of_videos(q, page, top)
        first = snapshot.first_clips([row["video_id"] for row in rows])
        shown = [answers.video(row, first.get(row["video_id"])) for row in rows]
        return answers.VideoPage(total=total, page=page, has_more=page * top < total, videos=shown)

    return await _within(request, work)


@router.get("/videos/{video_id}", response_model=answers.WholeVideo)
async def video(request: Request, video_id: VideoId) -> answers.WholeVideo:
    """A video with its clips and tags."""
    snapshot = _snapshot(request)
    return await _within(request, lambda: answers.whole_video(snapshot, snapshot.video(video_id)))


@router.get("/media/{video_id}", response_class=Response)
async def media_of(request: Request, video_id: VideoId) -> Response:
    """The file of a video, in byte ranges if asked."""
    snapshot = _snapshot(request)
    asked = request.headers.get("range")
    return await _within(request, lambda: media.response(snapshot.video(video_id).uri, asked))


@router.get("/preview/{video_id}", response_class=Response)
async def preview(
    request: Request,
    video_id: VideoId,
    start_s: Annotated[float, Query(ge=0, le=1e9)] = 0.0,
    length_s: Annotated[float, Query(gt=0, le=MOST_LENGTH_S)] = 20.0,
) -> Response:
    """A stretch of a video as a small MP4 that browsers play, without sound; its time 0 is `start_s`."""
    row = await _within(request, lambda: _snapshot(request).video(video_id))
    file = await _within(request, lambda: request.app.state.previews.of(row.uri, start_s, length_s))
    return FileResponse(file, media_type="video/mp4", headers={"cache-control": f"private, max-age={DAY_S}"})


@router.get("/thumbnails/{clip_id}", response_class=Response)
async def thumbnail(request: Request, clip_id: ClipId) -> Response:
    """The picture of a clip, WebP."""
    picture = await _within(request, lambda: _snapshot(request).thumbnail(clip_id))
    headers = {"cache-control": f"private, max-age={365 * DAY_S}, immutable"}
    return Response(picture, media_type="image/webp", headers=headers)


@router.get("/labels", response_model=answers.Labels)
async def labels(request: Request) -> answers.Labels:
    """The labels that clips are tagged with, most clips first."""
    found = await _within(request, lambda: _snapshot(request).labels)
    return answers.Labels(labels=[answers.LabelCount(**label) for label in found])


@router.get("/stats", response_model=answers.Stats)
async def stats(request: Request) -> answers.Stats:
    """What the archive holds."""
    snapshot = _snapshot(request)
    told = await _within(request, lambda: snapshot.stats)
    return answers.Stats(**told, version=versions()["footage"], columns=filters.column_names())


@router.post("/session", status_code=204)
async def session(request: Request, asked: answers.SessionRequest) -> Response:
    """Keeps the token in a cookie that scripts cannot read, so that pictures and videos are let through too."""
    limits: Limits = request.app.state.limits
    if not limits.admits(asked.token):
        raise HTTPException(401, "this is not the server's token", {"www-authenticate": "Bearer"})
    response = Response(status_code=204)
    if limits.token is None:  # nothing to keep
        return response
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, asked.token, httponly=True, samesite="strict", secure=secure, max_age=30 * DAY_S)
    return response


@router.get("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/ready", include_in_schema=False)
async def ready(request: Request) -> dict[str, Any]:
    """A snapshot is open and questions can be answered."""
    return {"status": "ok", "version": list(_snapshot(request).version)}


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Counts for Prometheus."""
    snapshot, kept = _snapshot(request), request.app.state.metrics
    return Response(kept.text(snapshot.corpus.index.count, snapshot.videos.num_rows), media_type=CONTENT_TYPE_LATEST)
