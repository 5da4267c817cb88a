#!/usr/bin/env bash
# The pictures of a report: docs/images/report.sh "$(.venv/bin/reseed report quickstart)"
set -euo pipefail
page="file://$(realpath "$1")" && cd "$(dirname "$0")"
picture() { chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --screenshot="$1" "${@:2}" "$page" 2> /dev/null; }
picture report-light.png --blink-settings=preferredColorScheme=1 --window-size=900,2050
picture report-dark.png --blink-settings=preferredColorScheme=0 --window-size=900,2050
picture report-phone.png --blink-settings=preferredColorScheme=1 --window-size=500,2050
