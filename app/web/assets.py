"""Static files: read once, compressed once, told apart by content."""

import gzip
import hashlib
import mimetypes
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from app.errors import NotFound

AnyRequest: TypeAlias = Request[Any, Any, Any]

# What names its version, in the path or the query, never changes under that name.
_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"
_COMPRESSIBLE: Final = ("text/", "application/javascript", "application/json", "image/svg")


class Asset:
    """One file, as it goes over the wire."""

    def __init__(self, path: Path) -> None:
        self._path = path
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        # Browsers run scripts under either name, but nosniff makes the right one matter.
        self.media_type = "text/javascript" if kind.endswith("/javascript") else kind

    @cached_property
    def body(self) -> bytes:
        """The file as it is."""
        return self._path.read_bytes()

    @cached_property
    def etag(self) -> str:
        """Changes with the content."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:20]}"'

    @cached_property
    def compressed(self) -> bytes | None:
        """None where it wouldn't get smaller."""
        return gzip.compress(self.body, mtime=0) if self.media_type.startswith(_COMPRESSIBLE) else None


class Assets:
    """All files below a directory, by their path. Nothing else can be named, so nothing else can be read."""

    def __init__(self, directory: Path) -> None:
        self._files = {
            path.relative_to(directory).as_posix(): Asset(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        own = [asset.body for name, asset in self._files.items() if not name.startswith("vendor/")]
        self.version = hashlib.sha256(b"".join(own)).hexdigest()[:10]

    def answer(self, name: str, request: AnyRequest) -> Response[bytes]:
        """The file; who has it already gets 304 from the Edge. Raises `NotFound`."""
        asset = self._files.get(name)
        if asset is None:
            raise NotFound
        lasting = name.startswith("vendor/") or request.query_params.get("v") == self.version
        headers = {"ETag": asset.etag, "Cache-Control": _FOREVER if lasting else _ASK_AGAIN, "Vary": "Accept-Encoding"}
        body = asset.body
        if "gzip" in request.headers.get("accept-encoding", "") and asset.compressed is not None:
            body = asset.compressed
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers, media_type=asset.media_type)

    def route(self) -> HTTPRouteHandler:
        """GET /static/{name}."""

        @get("/static/{name:path}", include_in_schema=False, sync_to_thread=False)
        def static_file(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
            return self.answer(name.lstrip("/"), request)

        return static_file
