"""Credentials are never written down: passwords, keys and signatures in texts and addresses become `***`."""

from __future__ import annotations

import os
import re
from functools import partial
from urllib.parse import quote, unquote

SECRET_NAME = re.compile(r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH_STRING)$", re.IGNORECASE)
# a password may hold @, and an S3 key slashes: it extends to the last @, unless what looks like a password is a port
USER_INFO = re.compile(r"(\w://)(?:[^/?#\s]+@|[^/@\s]+@|[^/@\s:\[]+:(?!\d*(?:[/?#\s'\",;)\]>]|$))\S{0,500}@)")
PARAMETER = re.compile(r"([?&;#])([^=&;#?\s'\"<>]{1,100})=([^&;#\s\"<>]*[^&;#\s\"<>'()\[\],.:])")
# names of address parameters that hold credentials: presigned URLs of every cloud, and API keys
CREDENTIAL = re.compile(
    r"^x-(?:amz|goog)-|(?:token|secret|passwo?r?d|passphrase|pwd|signature|credential|authorization|bearer|hmac|jwt|hdnts|hdnea"
    r"|session|googleaccessid|key-pair-id|(?:[^a-z]|^)(?:pass|cred|sig|sas|ticket)|auth|key)(?:[_-]?id|s)?[_-]?\d*$"
    r"|^(?:code|policy)$"
)
HARMLESS = re.compile(  # names that end like those but hold none: their values distinguish one source from another
    r"(?:sort|order|group|row|partition|primary|foreign|column|index|object|file|(?:^|[^a-z])(?:mon|tur|hoc))[_-]?keys?$"
    r"|(?:max|min|num|count)[_-]?tokens$"
)
DEPTH = 4  # levels of addresses within parameters of addresses


def without_credentials(text: str, depth: int = DEPTH) -> str:
    """The text with users, passwords, signatures and keys in its addresses, and in addresses within those, starred out."""
    return PARAMETER.sub(partial(star_parameter, depth=depth), USER_INFO.sub(r"\1***@", text))


def star_parameter(parameter: re.Match[str], depth: int) -> str:
    """A parameter of an address with its value starred out if that is a credential, or the credentials within it."""
    before, name, value = parameter.groups()
    inner = unquote(value)  # an address again, as in redirects
    if is_credential(name) or (depth == 0 and "=" in inner):
        return f"{before}{name}=***"
    if depth > 0 and (clean := without_credentials(inner, depth - 1)) != inner:
        value = quote(clean, safe="*") if inner != value else clean
    return f"{before}{name}={value}"


def is_credential(name: str) -> bool:
    """True if the parameter of that name holds a credential."""
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", unquote(unquote(name))).lower()
    return bool(CREDENTIAL.search(words) or CREDENTIAL.search(words.replace("_", ""))) and not HARMLESS.search(words)


def without_secrets(text: str) -> str:
    """The text with credentials in addresses, and the values of variables named like secrets, starred out."""
    text = without_credentials(text)
    for name, secret in os.environ.items():
        if len(secret) >= 8 and SECRET_NAME.search(name):
            text = text.replace(secret, "***")
    return text
