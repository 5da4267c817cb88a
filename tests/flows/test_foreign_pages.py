"""Pages in a real Chromium: the dashboard after one login, and pages of others that try to have the worker run commands."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from line_project import LineProject
from test_deployments import ask

from flows.local_server import running
from flows.local_settings import LocalServer

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: `apt-get install chromium` has it"),
]
QUIET = ("quic", "background-networking", "component-update", "sync")
# What a page can send without asking first, and what it can read of the answer: both as far as the browser lets it.
ATTACK = """async ([api, deployment, body]) => {
    const said = [];
    const paths = [`/deployments/${deployment}/create_flow_run`, "/deployments/filter"];
    for (const path of paths) for (const mode of ["cors", "no-cors"]) for (const type of ["text/plain", "application/json"]) {
        const request = {method: "POST", mode, credentials: "include", headers: {"Content-Type": type}, body};
        try {
            const answer = await fetch(api + path, request);
            said.push([answer.status, await answer.text()]);
        } catch (error) { said.push(["refused", ""]); }
    }
    return said;
}"""


@pytest.fixture(scope="module")
def server(served: LineProject) -> LocalServer:
    found = running(served.folder)
    assert found is not None
    return found


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


@pytest.fixture
def page(chromium: Any, server: LocalServer) -> Iterator[Any]:
    """A page of somebody who has logged in to the dashboard in the same browser."""
    context = chromium.new_context()
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(server.ui_url)
    page.locator("input[type=password]").fill(server.secret)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "unauthenticated" not in url and "login" not in url)
    yield page
    context.close()


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
    """`own`: the page's own address leads to the server, so no rule about origins holds it back, only the key."""
    deployment = ask(served, "deployments/name/experiment/quickstart")["id"]
    proof = served.folder / "a-page-was-here"
    body = json.dumps({"name": "by-a-page", "job_variables": {"command": f"touch '{proof}'"}})
    origin = "http://" + host.replace("other", str(other_port)).replace("own", str(server.port))
    if "own" in host:
        page.route(f"{origin}/page", lambda route: route.fulfill(content_type="text/html", body="<title>evil</title>"))
    page.goto(f"{origin}/page")
    api = f"{origin}/api" if "own" in host else server.api_url
    said = page.evaluate(ATTACK, [api, deployment, body])
    assert all(status in {"refused", 0, 401} for status, _ in said), said
    assert {text for _, text in said} <= {"", '{"exception_message":"Unauthorized"}'}, said
    assert ask(served, "flow_runs/filter", flow_runs={"name": {"any_": ["by-a-page"]}}) == []
    assert not proof.exists()
    if "own" in host:
        assert 401 in {status for status, _ in said}, "it was the server that answered"


def test_the_dashboard_shows_the_deployments_after_one_login(page: Any, server: LocalServer) -> None:
    page.goto(f"{server.ui_url}/deployments")
    page.get_by_text("quickstart").first.wait_for()
    page.reload()
    page.get_by_text("nightly").first.wait_for()


def test_the_dashboard_shows_nothing_without_it(chromium: Any, server: LocalServer) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"{server.ui_url}/deployments", timeout=120_000)
    page.locator("input[type=password]").wait_for(timeout=120_000)
    assert page.get_by_text("quickstart").count() == 0
    context.close()
