#!/usr/bin/env bash
# The picture of a report on the dashboard: docs/images/artifact.sh quickstart, where `reseed up` runs and has shown one.
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/python - "$1-report" docs/images/artifact.png << 'END'
import io, shutil, sys
from pathlib import Path
from PIL import Image
from playwright.sync_api import sync_playwright
from infra.local.api import ask
from infra.local.server import running

key, picture = sys.argv[1:]
server = running(Path.cwd()) or sys.exit("no server: `reseed up`")
(artifact,) = ask(server, "/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}}) or sys.exit(f"no {key}")
with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = chromium.new_context(color_scheme="dark", viewport={"width": 1360, "height": 900}).new_page()
    page.goto(f"{server.ui_url}/deployments")
    page.locator("input[type=password]").fill(server.secret)
    page.keyboard.press("Enter")
    page.get_by_text("nightly").first.wait_for()
    page.goto(f"{server.ui_url}/v2/artifacts/artifact/{artifact['latest_id']}")
    page.wait_for_function("document.images.length === 5")
    page.wait_for_timeout(2000)
    page.get_by_role("heading", name="Comparisons").evaluate("heading => heading.scrollIntoView()")
    page.wait_for_timeout(1000)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
shot.quantize(128).save(picture, optimize=True)
END
