"""pip's configuration, read without pip."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from reseed.records import ReseedError


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's settings by their long names; the environment's `PIP_*` win over files."""
    found: dict[str, str] = {}
    for path in pip_files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError) as error:
            raise ReseedError(
                f"{path}: pip's configuration cannot be read ({type(error).__name__}); mend it"
            ) from error
        for section in ("global", "download"):
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    named = {key: value for key, value in environment.items() if key.startswith("PIP_") and value}
    return found | {key[4:].lower().replace("_", "-"): value for key, value in named.items()}


def pip_files(environment: Mapping[str, str]) -> list[Path]:
    """pip's configuration files on Linux, in ascending order of precedence."""
    own = environment.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return []
    shared = [Path(place) / "pip" for place in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if place]
    home = Path(environment.get("HOME") or "~").expanduser()
    user = [home / ".pip", Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip"]
    folders = [*shared, Path("/etc"), *user, Path(sys.prefix)]
    return [folder / "pip.conf" for folder in folders] + ([Path(own)] if own else [])


def pip_network(environment: Mapping[str, str]) -> tuple[str | bool, dict[str, str]]:
    """The file of certificates to trust, or True for the default ones, and the proxies in pip's settings."""
    settings = pip_settings(environment)
    certificates = settings.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE")
    proxy = settings.get("proxy")
    return certificates or True, dict.fromkeys(("http", "https"), proxy) if proxy else {}
