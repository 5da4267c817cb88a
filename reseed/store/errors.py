"""Errors of a file system or an S3 server, explained: what happened, and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reseed.credentials import without_secrets
from reseed.records import ReseedError
from reseed.store.patience import NoAnswer

CHECK_S3 = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and the network"
BUSY = (
    "the server is overloaded or out of order, and the keys are not the reason; start the same command again later: "
    "what was finished is kept and not run again"
)
FAMILIES = ("botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs")


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn every error of a file system or S3 client into a ReseedError that names `place` and the cure."""
    try:
        yield
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise ReseedError(without_secrets(f"store {place}: {message}")) from error


def explain(error: Exception) -> str | None:
    """What happened and the cure; None for what is already explained, or is a bug."""
    if isinstance(error, ReseedError):
        return None
    code, status = s3_answer(error)
    if is_busy(error):
        return f"{error}; {BUSY}" if isinstance(error, NoAnswer) else f"it answered {code} ({error}); {BUSY}"
    if isinstance(error, NoAnswer):
        return f"{error}; {CHECK_S3}"
    if code == "NoSuchBucket":
        return "the bucket does not exist; create it, or mend the profile's `store`"
    if isinstance(error, PermissionError) or status in (401, 403):
        return (
            f"access refused ({code or error}); for S3 check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_ENDPOINT_URL, for a folder its owner and mode"
        )
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or status == 507:
        return (
            "no space left on the device; free some and start the same command again: "
            "what was finished is kept and not run again"
        )
    if isinstance(error, ImportError):
        return f"{error}; install reseed again, it comes with what it needs"
    if code is not None:
        return f"the S3 server answered {code} ({error}); {CHECK_S3}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}; check the folder and its disk"
    if isinstance(error, OSError) or type(error).__module__.startswith(FAMILIES) or "Invalid endpoint" in str(error):
        return f"{type(error).__name__}: {error}; {CHECK_S3}"
    return None


def is_busy(error: BaseException) -> bool:
    """True when an S3 server says that it is overloaded or out of order: no other credentials would help."""
    code, status = s3_answer(error)
    return code in ("SlowDown", "RequestTimeout", "InternalError") or status in (429, 500, 502, 503, 504)


def s3_answer(error: BaseException) -> tuple[str | None, int | None]:
    """The S3 error code and the HTTP status behind an exception of s3fs, which keeps botocore's as its cause."""
    for one in (error, error.__cause__):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict):
            return response.get("Error", {}).get("Code"), response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None, None
