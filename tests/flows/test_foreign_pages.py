"""Pages in a real Chromium: the dashboard after one login, a report's pictures there, and pages of others that try to have the
worker run commands."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from line_project import LineProject, server_of
from PIL import Image
from test_deployments import ask

from infra.local.settings import LocalServer

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: `apt-get install chromium` has it"),
]
QUIET = ("quic", "background-networking", "component-update", "sync")
# Every way to post and to read. A body without a type needs no preflight, and Prefect takes it for JSON.
ATTACK = """async ([api, deployment, body]) => {
    const said = [];
    const bodies = [new Blob([body]), new Blob([body], {type: "text/plain"}), new Blob([body], {type: "application/json"})];
    for (const path of [`/deployments/${deployment}/create_flow_run`, "/deployments/filter"])
        for (const mode of ["cors", "no-cors"]) for (const body of bodies) {
            try {
                const answer = await fetch(api + path, {method: "POST", mode, body});
                said.push([answer.status, await answer.text()]);
            } catch (error) { said.push(["refused", ""]); }
        }
    return said;
}"""

DRAWN = """wanted => [...document.images].filter(
    image => image.src.startsWith("data:image/svg+xml;base64,") && image.complete && image.naturalWidth > 500
).length === wanted"""


@pytest.fixture(scope="module")
def server(served: LineProject) -> LocalServer:
    return server_of(served)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for which evil.test is this machine, as after DNS rebinding."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--no-first-run", "--no-proxy-server", *(f"--disable-{name}" for name in QUIET)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*arguments, "--host-resolver-rules=MAP evil.test 127.0.0.1"],
            timeout=120_000,
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(chromium: Any, server: LocalServer) -> Any:
    """A page of somebody who has logged in to the dashboard in the same browser."""
    return logged_in(chromium, server, "light")


def logged_in(chromium: Any, server: LocalServer, scheme: str) -> Any:
    """A page of a reader who prefers light or dark pages, after the login."""
    page = chromium.new_context(color_scheme=scheme, viewport={"width": 1300, "height": 900}).new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{server.ui_url}/deployments")
    page.locator("input[type=password]").fill(server.secret)
    assert page.get_by_text("quickstart").count() == 0, "it shows nothing before"
    page.keyboard.press("Enter")
    page.get_by_text("quickstart").first.wait_for()
    return page


@pytest.fixture(scope="module")
def other_port() -> Iterator[int]:
    """A web server at another port of this machine, with an empty page."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>harmless</title>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        yield pages.server_port
        pages.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1:other", "evil.test:other", "evil.test:own"])
def test_a_page_of_others_gets_nothing(
    host: str, page: Any, served: LineProject, server: LocalServer, other_port: int
) -> None:
    """`own`: the page's name leads to the server (DNS rebinding), so no rule about origins holds it back, only the key."""
    deployment = ask(served, "deployments/name/experiment/quickstart")["id"]
    proof = served.folder / "a-page-was-here"
    body = json.dumps({"name": "by-a-page", "job_variables": {"command": f"touch '{proof}'"}})
    origin = "http://" + host.replace("other", str(other_port)).replace("own", str(server.port))
    page.goto(f"{origin}/api/health")  # any document of that origin will do
    api = f"{origin}/api" if "own" in host else server.api_url
    said = page.evaluate(ATTACK, [api, deployment, body])
    assert all(status in {"refused", 0, 401} for status, _ in said), said
    assert {text for _, text in said} <= {"", '{"exception_message":"Unauthorized"}'}, said
    assert ask(served, "flow_runs/filter", flow_runs={"name": {"any_": ["by-a-page"]}}) == []
    assert not proof.exists()
    if "own" in host:
        assert 401 in {status for status, _ in said}, "it was the server that answered"


def test_the_dashboard_asks_for_the_key_once(page: Any, server: LocalServer) -> None:
    page.goto(f"{server.ui_url}/deployments")
    page.get_by_text("nightly").first.wait_for()


def picture_of(element: Any) -> bytes:
    """A screenshot of an element of a page that may draw itself anew meanwhile, which takes the element away."""
    from playwright.sync_api import Error

    for _ in range(20):
        try:
            return bytes(element.screenshot(timeout=10_000))
        except Error:
            element.page.wait_for_timeout(500)
    raise AssertionError("the page never came to rest")


@pytest.mark.parametrize(("scheme", "paper"), [("light", (252, 252, 251)), ("dark", (26, 28, 32))])
def test_the_dashboard_shows_a_report_s_pictures_in_its_colours(
    scheme: str, paper: tuple[int, int, int], chromium: Any, server: LocalServer, undisturbed: LineProject
) -> None:
    """What Prefect's page makes of Markdown may change with any version of it."""
    shown = ask(undisturbed, "artifacts/latest/filter", artifacts={"key": {"any_": ["tiny-report"]}})
    page = logged_in(chromium, server, scheme)
    page.goto(f"{server.ui_url}/v2/artifacts/artifact/{shown[0]['latest_id']}")
    pictures = page.locator("img[src^='data:image/svg+xml;base64,']")
    page.wait_for_function(DRAWN, arg=5)
    for i in range(5):
        drawn = Image.open(io.BytesIO(picture_of(pictures.nth(i)))).convert("RGB")
        colours = Counter(drawn.getdata())
        assert colours.most_common(1)[0][0] == paper
        assert len(colours) > 30, "and something is drawn on it"
