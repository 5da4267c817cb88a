"""What opens a door is not written down: passwords, keys and signatures are starred out of texts and addresses."""

from __future__ import annotations

import os
import re
from functools import partial
from urllib.parse import quote, unquote

SECRET_NAME = re.compile(r"(KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH_STRING)$", re.IGNORECASE)
# a password may hold @, and a key of S3 slashes: they go on to the last @, unless what looks like one is a port
USER_INFO = re.compile(r"(\w://)(?:[^/?#\s]+@|[^/@\s]+@|[^/@\s:\[]+:(?!\d*(?:[/?#\s'\",;)\]>]|$))\S{0,500}@)")
PARAMETER = re.compile(r"([?&;#])([^=&;#?\s'\"<>]{1,100})=([^&;#\s\"<>]*[^&;#\s\"<>'()\[\],.:])")
# a parameter of an address whose name says that its value opens a door: presigned URLs of every cloud, and API keys
OPENS = re.compile(
    r"^x-(?:amz|goog)-|(?:token|secret|passwo?r?d|passphrase|pwd|signature|credential|authorization|bearer|hmac|jwt|hdnts|hdnea"
    r"|session|googleaccessid|key-pair-id|(?:[^a-z]|^)(?:pass|cred|sig|sas|ticket)|auth|key)(?:[_-]?id|s)?[_-]?\d*$"
    r"|^(?:code|policy)$"
)
PLAIN = re.compile(  # names that end like one of them and hold none: their values tell one source from another
    r"(?:sort|order|group|row|partition|primary|foreign|column|index|object|file|(?:^|[^a-z])(?:mon|tur|hoc))[_-]?keys?$"
    r"|(?:max|min|num|count)[_-]?tokens$"
)
SIGNED_WITH = re.compile(r"(expires|s[etvrpk]|spr|sk[oteskv]\w*|algorithm|date)", re.IGNORECASE)  # new each time
DEPTH = 4  # addresses within parameters of addresses that are looked into


def without_credentials(text: str, depth: int = DEPTH) -> str:
    """The text with user, password, signature and keys in its addresses starred out, and in addresses within those."""
    return PARAMETER.sub(partial(starred, depth=depth), USER_INFO.sub(r"\1***@", text))


def starred(parameter: re.Match[str], depth: int) -> str:
    """A parameter of an address without its value if that opens a door, or without what opens one in its value."""
    before, name, value = parameter.groups()
    inner = unquote(value)  # an address again, as those that redirect have it
    if opens(name) or (depth == 0 and "=" in inner):
        return f"{before}{name}=***"
    if depth > 0 and (clean := without_credentials(inner, depth - 1)) != inner:
        value = quote(clean, safe="*") if inner != value else clean
    return f"{before}{name}={value}"


def opens(name: str) -> bool:
    """True when the name of an address's parameter says that its value opens a door."""
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", unquote(unquote(name))).lower()
    return bool(OPENS.search(words) or OPENS.search(words.replace("_", ""))) and not PLAIN.search(words)


def unsigned(address: str) -> str:
    """What stays the same of an address when it is signed anew: the address itself where it holds no credential."""
    clean = without_credentials(address)
    if clean == address:
        return address
    place, _, query = clean.partition("?")
    parts = [(one, *one.split("=", 1)) for one in query.split("&")]
    kept = [one for one, name, *value in parts if value != ["***"] and not SIGNED_WITH.fullmatch(name)]
    return "?".join(filter(None, [place, "&".join(kept)]))


def without_secrets(text: str) -> str:
    """The text with credentials in addresses, and the values of variables named like secrets, starred out."""
    text = without_credentials(text)
    for name, secret in os.environ.items():
        if len(secret) >= 8 and SECRET_NAME.search(name):
            text = text.replace(secret, "***")
    return text
