"""Sources at an address: named by what is there, fetched once, and read without a network once they were."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import fsspec
import pytest
from s3_server import forget_clients
from web_server import QuietHandler, served_by

from reseed.data.sources import Source, read_source, resolve_source
from reseed.files import file_digest
from reseed.problems import load_problem
from reseed.records import ReseedError
from reseed.store.artifacts import ArtifactStore

PROBLEM = load_problem("prompt-recovery")
HEADER = "original_text,rewritten_text,rewrite_prompt\n"


class Page:
    """One file that a web server gives with these headers, and how often it gave it."""

    def __init__(self, **headers: str) -> None:
        self.content, self.headers, self.status = f"{HEADER}a,b,c\n".encode(), headers, 200
        self.given, self.port, self.cuts = 0, 0, 0
        self.after_cut = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/rows.csv"


@contextmanager
def serving(page: Page) -> Iterator[None]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802
            page.given += 1
            content, start = page.content, 0
            if self.headers.get("Range") and self.headers.get("If-Range") == page.headers.get("ETag"):
                start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else page.status)
            self.send_header("Content-Length", str(len(content) - start))
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if page.given > 1 and page.cuts:  # the first time only the version is looked at
                page.cuts -= 1
                self.wfile.write(content[: len(content) // 2])
                if page.after_cut:
                    page.content, page.headers = page.after_cut, {"ETag": '"second"'}
                return
            with suppress(OSError):
                self.wfile.write(content[start:])

    with served_by(Handler, page.port) as page.port:
        yield


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def texts(source: Source, store: ArtifactStore) -> list[str]:
    return [row["original_text"] for row in read_source(source, store, PROBLEM)]


def test_the_key_is_the_content_s_and_moves_with_it(tmp_path: Path, store: ArtifactStore, cache: Path) -> None:
    page = Page(ETag='"1"')
    (tmp_path / "copy.csv").write_bytes(page.content)
    with serving(page):
        first = resolve_source(page.url, store)
        assert first.content == resolve_source(str(tmp_path / "copy.csv"), store).content
        page.content = b"never asked for"
        assert resolve_source(page.url, store) == first, "its version is the same"
        page.content, page.headers = f"{HEADER}a,b,c\nd,e,f\n".encode(), {"ETag": '"2"'}
        second = resolve_source(page.url, store)
    assert second.content != first.content
    assert (texts(first, store), texts(second, store)) == (["a"], ["a", "d"]), "what was planned with is still there"
    assert sorted(path.stem for path in (cache / "sources").glob("*.csv")) == sorted([first.content, second.content])


@pytest.mark.parametrize("status", [429, 503])
def test_without_a_network_the_last_copy_is_taken_and_said(store: ArtifactStore, status: int) -> None:
    page = Page(ETag='"1"')
    with serving(page):
        known = resolve_source(page.url, store)
        page.status = status
        assert "cannot be reached; taken as it was" in resolve_source(page.url, store).note
    offline = resolve_source(page.url, store)
    assert (offline.content, texts(offline, store)) == (known.content, ["a"])
    assert offline.note == f"{page.url}: cannot be reached; taken as it was when it was last fetched"
    with pytest.raises(ReseedError, match=r"cannot fetch http.*other\.csv \(.*check the address and the network"):
        resolve_source(page.url.replace("rows", "other"), store)


def test_a_file_that_is_gone_is_not_taken_from_the_cache(store: ArtifactStore) -> None:
    page = Page(ETag='"1"')
    with serving(page):
        resolve_source(page.url, store)
        page.status = 404
        with pytest.raises(ReseedError, match=r"cannot fetch .*404"):
            resolve_source(page.url, store)


BEFORE = "Thu, 26 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize("says_time", [False, True], ids=["no version", "a version of this second"])
def test_a_server_that_says_no_version_is_asked_for_the_file_each_time(store: ArtifactStore, says_time: bool) -> None:
    page = Page(**({"Last-Modified": formatdate(usegmt=True)} if says_time else {}))
    with serving(page):
        first = resolve_source(page.url, store)
        page.content = page.content.replace(b"a,b,c", b"x,b,c")  # of the same size
        assert texts(resolve_source(page.url, store), store) == ["x"]
        assert texts(first, store) == ["a"]


def test_an_older_file_that_was_put_back_is_seen(store: ArtifactStore) -> None:
    page = Page(**{"Last-Modified": BEFORE})  # the server's own Date is today's
    with serving(page):
        resolve_source(page.url, store)
        page.content, page.headers = (
            f"{HEADER}old,b,c\n".encode(),
            {"Last-Modified": BEFORE.replace("26 Nov", "25 Nov")},
        )
        assert texts(resolve_source(page.url, store), store) == ["old"]


def test_a_download_that_broke_continues_in_the_same_version_only(store: ArtifactStore) -> None:
    lines = "".join(f"{number},b,c\n" for number in range(200_000))
    page = Page(ETag='"first"')
    page.content, page.cuts = f"{HEADER}{lines}".encode(), 1
    with serving(page):
        assert len(texts(resolve_source(page.url, store), store)) == 200_000
        assert page.given == 3, "a look, half of it, and the rest"
    page = Page(ETag='"first"')
    page.content, page.cuts, page.after_cut = f"{HEADER}{lines}".encode(), 1, f"{HEADER}{lines.upper()}".encode()
    with serving(page):
        source = resolve_source(page.url, store)
    assert source.files[0].read_bytes() == page.after_cut, "not half of each"


def test_two_addresses_are_two_files_though_they_differ_in_a_credential(store: ArtifactStore) -> None:
    page = Page(ETag='"1"')
    with serving(page):
        first = resolve_source(f"{page.url}?key=train", store)
        page.content = f"{HEADER}test,b,c\n".encode()
        second = resolve_source(f"{page.url}?key=test", store)
        assert (texts(first, store), texts(second, store)) == (["a"], ["test"])
    with pytest.raises(ReseedError, match="cannot fetch"):
        resolve_source(f"{page.url}?key=other", store)


def test_a_scheme_in_capitals_is_the_same_address(store: ArtifactStore) -> None:
    page = Page(ETag='"1"')
    with serving(page):
        first = resolve_source(page.url, store)
        given = page.given
        again = resolve_source(page.url.replace("http://", "HTTP://"), store)
        assert (again.content, page.given) == (first.content, given + 1), "it was only asked for its version"


def test_a_short_password_leaves_the_message_legible(store: ArtifactStore) -> None:
    page = Page(ETag='"1"')
    page.status = 404
    with serving(page):
        for user in ("e:t", "someone:pass-of-nine"):
            with pytest.raises(ReseedError) as raised:
                resolve_source(page.url.replace("://", f"://{user}@"), store)
            said = str(raised.value)
            assert f"cannot fetch http://***@127.0.0.1:{page.port}/rows.csv (HTTPError: 404" in said
            assert "check the address and the network" in said
            assert user not in said
            assert "pass-of-nine" not in said


def test_a_bar_is_for_terminals(
    store: ArtifactStore, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/bars/rows.csv", f"{HEADER}a,b,c\n".encode())
    assert texts(resolve_source("memory://bars/rows.csv", store), store) == ["a"]
    assert capfd.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    memory.pipe("/bars/rows.csv", f"{HEADER}d,e,f\n".encode())
    assert texts(resolve_source("memory://bars/rows.csv", store), store) == ["d"]
    assert "rows.csv" in terminal.getvalue()


def test_a_damaged_copy_is_noticed(store: ArtifactStore) -> None:
    page = Page(ETag='"1"')
    with serving(page):
        source = resolve_source(page.url, store)
        source.files[0].write_bytes(page.content + b"x,y,z\n")
        with pytest.raises(ReseedError, match="was changed after this run was planned"):
            texts(source, store)
        assert resolve_source(page.url, store).content == file_digest(source.files[0]) == source.content, (
            "fetched again"
        )


def test_files_of_a_pattern_are_one_source(
    tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("b", "two"), ("a", "one"), ("deep/c", "three")):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / f"{name}.csv").write_text(f"{HEADER}{text},b,c\n")
    source = resolve_source("data/**/*.csv", store)
    assert texts(source, store) == ["one", "two", "three"]
    (tmp_path / "data").rename(tmp_path / "moved")
    assert resolve_source("moved/**/*.csv", store).content == source.content
    with pytest.raises(ReseedError, match="was removed after this run was planned"):
        texts(source, store)
    (tmp_path / "moved" / "d.csv").write_text("original_text\nx\n")
    with pytest.raises(ReseedError, match=r"moved/d\.csv: no column 'rewritten_text'"):
        texts(resolve_source("moved/**/*.csv", store), store)
    (tmp_path / "moved" / "notes.txt").write_text("x")
    with pytest.raises(ReseedError, match=r"moved/notes\.txt: files ending in \.txt are not read"):
        resolve_source("moved/*", store)
    with pytest.raises(ReseedError, match=r"'moved/' is a folder; name its files, as in moved/\*\.csv"):
        resolve_source("moved/", store)
    with pytest.raises(ReseedError, match=r"no file 'nothing/\*\.csv'"):
        resolve_source("nothing/*.csv", store)


def test_a_file_has_no_split(tmp_path: Path, store: ArtifactStore) -> None:
    (tmp_path / "rows.csv").write_text(f"{HEADER}a,b,c\n")
    with pytest.raises(ReseedError, match=r"rows.csv is no hub dataset, so it has no data.config and data.split"):
        resolve_source(str(tmp_path / "rows.csv"), store, split="test")


def test_an_object_of_s3(s3_store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    url, path = f"{s3_store.url}/sources/rows.csv", f"{s3_store.root}/sources/rows.csv"
    s3_store.fs.pipe_file(path, f"{HEADER}a,b,c\n".encode())
    first = resolve_source(url, s3_store)
    assert resolve_source(url, s3_store) == first
    s3_store.fs.pipe_file(path, f"{HEADER}x,b,c\n".encode())
    second = resolve_source(url, s3_store)
    assert (texts(first, s3_store), texts(second, s3_store)) == (["a"], ["x"])
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        forget_clients()
        with pytest.raises(ReseedError, match="NoCredentialsError"):  # and not the copy of yesterday
            resolve_source(url, s3_store)
    forget_clients()
    bad = url.replace("s3://", "s3://AKIA:hush-hush@")
    with pytest.raises(ReseedError) as caught:
        resolve_source(bad, s3_store)
    assert "hush" not in str(caught.value)
    s3_store.fs.rm(path)
    with pytest.raises(ReseedError, match=r"cannot fetch s3://.*FileNotFoundError"):
        resolve_source(url, s3_store)
