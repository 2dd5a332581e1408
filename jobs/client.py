"""A small client of `footage serve`.

    with Client("http://127.0.0.1:8080") as archive:
        for hit in archive.search("a dog runs", where="duration_s > 60")["hits"]:
            print(hit["name"], hit["start_s"], hit["score"])

Answers are the JSON of the API as it is described at /openapi.json. A server that is busy is asked again after as long
as it says, a few times; every other refusal is a ServerError that says what the server said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from schemas.errors import FootageError

BUSY = (429, 503)
MOST_WAIT_S = 30.0
Answer = dict[str, Any]


class ServerError(FootageError):
    """What a server refused, with its HTTP status; 0 where none could be reached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A server, at a URL, and the token it asks for if it does."""

    def __init__(
        self, url: str, *, token: str | None = None, timeout_s: float = 60.0, tries: int = 4, http: Any = None
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http: httpx.Client = http or httpx.Client(base_url=url, timeout=timeout_s)
        self._http.headers.update(headers)
        self._tries = tries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def search(
        self,
        text: str | None = None,
        *,
        also: Sequence[str] = (),
        without: Sequence[str] = (),
        like_clips: Sequence[str] = (),
        **more: Any,
    ) -> Answer:
        """A page of moments. `more` are other parameters of /search: where, top, page, per_video, min_score, ..."""
        asked = {"q": text, "and": list(also), "not": list(without), "like_clip": list(like_clips), **more}
        return self._json("GET", "/search", params={key: value for key, value in asked.items() if value is not None})

    def search_picture(self, file: str | Path, **more: Any) -> Answer:
        """Moments that look like a picture file. `more` as for `search`, and `q` for a text beside it."""
        content = Path(file).read_bytes()
        sent = {"image": (Path(file).name, content, "application/octet-stream")}
        return self._json("POST", "/search", files=sent, data=more)

    def pages(self, text: str, **more: Any) -> Iterator[Answer]:
        """The pages of a search, one after the other, until the last that the server gives."""
        page = 1
        while True:
            answer = self.search(text, page=page, **more)
            yield answer
            if not answer["has_more"]:
                return
            page += 1

    def classify(self, labels: Sequence[str] | str, **of: Any) -> list[Answer]:
        """Labels, best first, of a `clip_id`, or a `video_id` and its span; a str names a set of the server."""
        asked = {"set": labels} if isinstance(labels, str) else {"labels": list(labels)}
        found: list[Answer] = self._json("POST", "/classify", json={**asked, **of})["labels"]
        return found

    def videos(self, **asked: Any) -> Answer:
        """A page of videos, newest first: q, page, top."""
        return self._json("GET", "/videos", params=asked)

    def video(self, video_id: str) -> Answer:
        """A video with its clips and tags."""
        return self._json("GET", f"/videos/{video_id}")

    def labels(self) -> list[Answer]:
        """The labels that clips are tagged with, most clips first."""
        found: list[Answer] = self._json("GET", "/labels")["labels"]
        return found

    def stats(self) -> Answer:
        """What the archive holds."""
        return self._json("GET", "/stats")

    def thumbnail(self, clip_id: str) -> bytes:
        """The picture of a clip, WebP."""
        return self._asked("GET", f"/thumbnails/{clip_id}").content

    def save_media(self, video_id: str, file: str | Path) -> None:
        """The file of a video, written as it comes."""
        with self._http.stream("GET", f"/media/{video_id}") as response, Path(file).open("wb") as target:
            if response.is_error:
                response.read()
                raise _refused(response)
            target.writelines(response.iter_bytes())

    def _json(self, method: str, path: str, **sent: Any) -> Answer:
        answer: Answer = self._asked(method, path, **sent).json()
        return answer

    def _asked(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """What the server answers, asked again while it is busy. Raises ServerError."""
        for left in reversed(range(self._tries)):
            try:
                response = self._http.request(method, path, **sent)
            except httpx.TransportError as error:
                raise ServerError(
                    f"no answer from {self._http.base_url}: {error}; is `footage serve` there?"
                ) from error
            if response.status_code not in BUSY or not left:
                break
            time.sleep(min(MOST_WAIT_S, float(response.headers.get("retry-after", 1))))
        if response.is_error:
            raise _refused(response)
        return response


def _refused(response: httpx.Response) -> ServerError:
    """What a server said."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.reason_phrase
    return ServerError(f"the server refused ({response.status_code}): {detail}", response.status_code)
