"""Forms with a file (RFC 7578), under the guards of any form: our own page, this browser's token, known fields."""

from litestar.datastructures import UploadFile

from app.errors import FieldError, Forbidden, InvalidRequest
from app.web import csrf
from app.web.browser import ADMIN, jar_of
from app.web.forms import Form
from app.web.services import AnyRequest, services

_MULTIPART = "multipart/form-data"


async def read_upload(request: AnyRequest, *allowed: str, file: str) -> tuple[Form, bytes]:
    """The fields of a form of somebody who is signed in, and what is in its `file`; nothing where none was chosen.

    Raises what `Face.form` raises.
    """
    if request.content_type[0] != _MULTIPART:
        return await ADMIN.form(request, *allowed, file), b""
    core = services(request)
    if not csrf.same_origin(request.headers, core.settings.public_url):
        raise Forbidden("This form was not sent from our own page.")
    form, body = Form(), b""
    for name, value in (await request.form()).multi_items():
        if name in form:
            raise InvalidRequest(FieldError(f"/{name}", "This field is there twice."))
        if isinstance(value, UploadFile):
            body = await value.read()
            await value.close()
            form[name] = ""
        else:
            form[name] = str(value)
    token = form.pop(csrf.FIELD, "")
    cookie = jar_of(request).read(request, ADMIN.cookie) or ""
    if not csrf.holds(core.ring, ADMIN.name, cookie, request.headers.get(csrf.HEADER) or token):
        raise Forbidden("The page had been open for too long. Load it again and repeat what you did.")
    form.only({*allowed, file})
    return form, body
