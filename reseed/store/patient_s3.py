"""s3fs with one layer of retries. Imported only where a store is on S3."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import count
from typing import Any

from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError
from botocore.handlers import add_expect_header
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.core import S3_RETRYABLE_ERRORS
from s3fs.errors import translate_boto_error

from reseed.store.errors import is_busy, s3_answer
from reseed.store.patience import PATIENCE, NoAnswer, Patience, impatient_socket

UNREACHED = (EndpointConnectionError, ConnectTimeoutError)


class PatientS3(S3FileSystem):
    """Retries each request until `patience` ends, in this class alone.

    s3fs would try five times what botocore tries four times, and its listing repeats in several ways what failed. Its own
    five tries remain for what is not a request: an answer that breaks off.
    """

    def __init__(self, *args: Any, patience: Patience = PATIENCE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.patience = patience
        self._gave_up = float("-inf")

    def _prepare_config_kwargs(self) -> dict[str, Any]:
        return {
            "connect_timeout": self.patience.connect,
            "read_timeout": self.patience.silence,
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "max_pool_connections": 32,
            "connector_args": {"socket_factory": partial(impatient_socket, self.patience.silence)},
            **self.config_kwargs,
        }

    async def set_session(self, *args: Any, **kwargs: Any) -> Any:
        """Set up s3fs's client without `Expect: 100-continue`, whose answer aiohttp would wait for without a limit."""
        client = await super().set_session(*args, **kwargs)
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        await self.set_session()
        client = await self.get_s3(kwargs.get("Bucket"))
        call = getattr(client, method)
        arguments = self._get_s3_method_kwargs(call, *akwarglist, **kwargs)
        started, failing = time.monotonic(), None
        for attempt in count(1):
            try:
                return await call(**arguments)
            except Exception as error:
                wait = min(0.1 * 2**attempt, 5)
                failing = failing or time.monotonic()  # before that it may have queued behind other requests
                if not is_passing(error):
                    translated = translate_boto_error(error)
                    if translated is error:
                        raise
                    raise translated from error
                if self._ends(error, failing, wait):
                    self._gave_up = time.monotonic()
                    thing = "/".join(str(arguments[key]) for key in ("Bucket", "Key", "Prefix") if arguments.get(key))
                    raise NoAnswer(
                        f"{client.meta.endpoint_url} was asked {method} of {thing} for "
                        f"{time.monotonic() - started:.0f} s, {attempt} times, and {what_came(error)}"
                    ) from error
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    call_s3 = sync_wrapper(_call_s3)  # s3fs's own is bound to the method of its class

    def _ends(self, error: Exception, failing: float, wait: float) -> bool:
        """True if there is no more patience for a request that first failed at `failing`, or another was just given up."""
        now, patience = time.monotonic(), self.patience
        if now - self._gave_up < patience.total:
            return True
        if isinstance(error, UNREACHED):
            return now - failing + wait + patience.connect > patience.refused
        return now - failing + wait + 2 * patience.silence > patience.total  # of the first try, and of the next


def is_passing(error: Exception) -> bool:
    """True for an error that may pass: a broken or silent connection, a server that is busy or out of order."""
    return isinstance(error, (*S3_RETRYABLE_ERRORS, *UNREACHED)) or (isinstance(error, ClientError) and is_busy(error))


def what_came(error: Exception) -> str:
    """What came instead of an answer, as the end of the message."""
    code, status = s3_answer(error)
    return (
        f"it answered {code} ({status}) every time"
        if code
        else f"there was no answer ({type(error).__name__}: {error})"
    )
