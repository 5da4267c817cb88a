from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from plain_step import plain_step
from web_server import QuietHandler, served_by

from reseed.credentials import without_credentials
from reseed.data.hub import is_hub_id
from reseed.data.sources import as_rows, read_source, resolve_source
from reseed.generation.pairs import seed_texts
from reseed.problems import load_problem
from reseed.records import ReseedError, Row
from reseed.settings import GenerationSettings
from reseed.store.artifacts import ArtifactStore

ROOT = Path(__file__).resolve().parents[3]
REWRITES = Path("..", "shared", "data", "gemma_rewrites.csv")  # from the repository's root
PROBLEM = load_problem("prompt-recovery")
HARD = 'He said "no",\nthen left; façade — 猫'
RECORDS: list[dict[str, Any]] = [
    {"original_text": "a, b", "rewritten_text": HARD, "rewrite_prompt": "Quote it.", "extra": 1},
    {"original_text": "c", "rewritten_text": None, "rewrite_prompt": "Drop it.", "extra": 2},
]
CSV = (
    "extra,original_text,rewritten_text,rewrite_prompt\r\n"
    '1,"a, b","He said ""no"",\nthen left; façade — 猫",Quote it.\r\n'
    "2,c,,Drop it.\r\n"
).encode()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def write(folder: Path, name: str, content: bytes | None = None) -> str:
    """A file of the two records in the kind that its name says, or of `content`."""
    path = folder / name
    if path.suffix == ".parquet" and content is None:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
        return str(path)
    kinds = {
        ".csv": CSV,
        ".json": json.dumps(RECORDS).encode(),
        ".jsonl": "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS).encode(),
    }
    path.write_bytes(kinds[path.suffix] if content is None else content)
    return str(path)


def read(given: str, store: ArtifactStore, columns: dict[str, str] | None = None) -> list[Row]:
    return list(read_source(resolve_source(given, store), store, PROBLEM, columns))


def refused(given: str, store: ArtifactStore, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(ReseedError) as caught:
        read(given, store, columns)
    return str(caught.value)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.jsonl", "rows.json"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, store: ArtifactStore, name: str) -> None:
    rows = read(write(tmp_path, name), store)
    assert [{key: row[key] for key in row if key != "id"} for row in rows] == [
        {"original_text": "a, b", "rewritten_text": HARD, "rewrite_prompt": "Quote it."},
        {"original_text": "c", "rewritten_text": "", "rewrite_prompt": "Drop it."},
    ]
    assert [row["id"] for row in rows] == [
        PROBLEM.row("a, b", "Quote it.", HARD)["id"],
        PROBLEM.row("c", "Drop it.", "")["id"],
    ]


def test_byte_order_mark_is_not_a_part_of_the_first_column(tmp_path: Path, store: ArtifactStore) -> None:
    content = b"\xef\xbb\xbforiginal_text,rewritten_text,rewrite_prompt\na,b,c\n"
    assert read(write(tmp_path, "excel.csv", content), store)[0]["original_text"] == "a"


def test_ids_are_digests_of_the_content_wherever_it_stands(tmp_path: Path) -> None:
    first, second = as_rows(RECORDS, PROBLEM, "one")
    (again,) = as_rows(RECORDS[1:], PROBLEM, "two")
    assert second == again
    assert first["id"] != second["id"]
    assert next(as_rows([{**RECORDS[0], "extra": 9}], PROBLEM, "three")) == first, "other columns do not count"
    assert next(as_rows([{**RECORDS[0], "rewritten_text": "x"}], PROBLEM, "four"))["id"] != first["id"]


def test_long_field_is_read(tmp_path: Path, store: ArtifactStore) -> None:
    content = b"original_text,rewritten_text,rewrite_prompt\n" + b"x" * 300_000 + b",b,c\n"
    assert len(read(write(tmp_path, "long.csv", content), store)[0]["original_text"]) == 300_000


def test_missing_column_is_answered_with_the_nearest(tmp_path: Path, store: ArtifactStore) -> None:
    path = write(tmp_path, "rows.csv", b"original_text,rewriten_text,prompt\na,b,c\n")
    message = refused(path, store)
    assert message.startswith(f"{path}: no column 'rewritten_text' (did you mean 'rewriten_text'?), 'rewrite_prompt'")
    assert "prompt-recovery needs original_text, rewritten_text, rewrite_prompt" in message
    assert message.endswith("the file has original_text, rewriten_text, prompt")


def test_columns_may_have_other_names(tmp_path: Path, store: ArtifactStore) -> None:
    path = write(tmp_path, "rows.csv", b"original_text,rewritten_text,rewrite_prompt,truth\na,b,guess,c\n")
    assert read(path, store, {"rewrite_prompt": "truth"})[0]["rewrite_prompt"] == "c"
    assert "no column 'trut', which data.columns asks for (did you mean 'truth'?)" in refused(
        path, store, {"rewrite_prompt": "trut"}
    )
    misspelt = refused(path, store, {"rewrite_promt": "truth"})  # would take the guesses for the truth
    assert "data.columns: prompt-recovery has no column 'rewrite_promt' (did you mean 'rewrite_prompt'?)" in misspelt


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rubbish.csv", bytes(range(256)) * 9, "is not UTF-8 text"),
        ("latin.csv", CSV.decode().replace("猫", "").encode("cp1252"), "is not UTF-8 text"),
        ("quote.csv", b'original_text,rewritten_text,rewrite_prompt\na,"b,c\nd,e,f\n', "cannot be read as csv"),
        ("comma.csv", b"original_text,rewritten_text,rewrite_prompt\na,b,c\nd,e,f,g\n", "row 2 has more fields"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "the header names the column 'a' twice"),
        (
            "apart.csv",
            b"original_text;rewritten_text\na, or b;c\n",
            "is it separated by semicolons? save it with commas",
        ),
        (
            "third.jsonl",
            b'{"original_text": "a", "rewritten_text": "b", "rewrite_prompt": "c"}\n\n[1]\n',
            "line 3: wanted",
        ),
        ("rubbish.parquet", b"PAR1 and nothing more", "cannot be read as parquet"),
        ("empty.parquet", b"", "cannot be read as parquet"),
        ("rubbish.json", b"{", "cannot be read as json"),
        ("object.json", b'{"original_text": "a"}', "wanted a list of objects"),
        ("numbers.json", b"[1, 2]", "wanted a list of objects"),
        ("rubbish.jsonl", b'{"original_text": "a"\n{"b": \n', "cannot be read as jsonl"),
        ("numbers.jsonl", b"1\n2\n", "wanted a list of objects"),
        ("empty.csv", b"", "holds no row"),
        ("header.csv", b"original_text,rewritten_text,rewrite_prompt\n", "holds no row"),
        ("empty.jsonl", b"", "holds no row"),
        ("empty.json", b"[]", "holds no row"),
        ("rows.txt", b"a", "files ending in .txt are not read; wanted .csv, .parquet, .jsonl, .json"),
        ("rows", b"a", "files ending in nothing are not read"),
    ],
)
def test_file_that_cannot_be_read_is_told(
    tmp_path: Path, store: ArtifactStore, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = refused(str(path), store)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_record_without_a_column_is_an_empty_text(tmp_path: Path, store: ArtifactStore) -> None:
    content = json.dumps(RECORDS[0]) + '\n{"original_text": "z"}\n'
    assert read(write(tmp_path, "gaps.jsonl", content.encode()), store)[1]["rewrite_prompt"] == ""
    assert read(write(tmp_path, "gaps.csv", CSV + b"3,z\r\n"), store)[2]["rewrite_prompt"] == ""


@pytest.mark.parametrize("given", ["missing.csv", "data/missing.csv", "data/MISSING.CSV", "a/b/c", "missing"])
def test_missing_file_is_told(
    tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(given, store)
    assert message == f"data.train: no file '{given}'; give a path from {tmp_path}, name@ref, a URL or a hub id"


@pytest.mark.parametrize(
    ("given", "hub"),
    [
        ("owner/name", True),
        ("owner/na.me-2", True),
        ("here/rows", False),
        ("owner/x.parquet", False),
        ("a/b/c", False),
        ("name", False),
    ],
)
def test_hub_id_is_owner_and_name_unless_a_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, hub: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "rows").write_text("")
    assert is_hub_id(given) is hub


def test_file_is_pinned_by_its_content(tmp_path: Path, store: ArtifactStore) -> None:
    first = resolve_source(write(tmp_path, "one.csv"), store)
    assert resolve_source(write(tmp_path, "two.csv"), store).content == first.content
    assert resolve_source(write(tmp_path, "one.csv", CSV + b"3,x,y,z\r\n"), store).content != first.content


class SilentHandler(QuietHandler, SimpleHTTPRequestHandler):
    """Gives the files of a folder."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a real web server over the test's folder."""
    with served_by(partial(SilentHandler, directory=str(tmp_path))) as port:  # type: ignore[arg-type]
        yield f"http://127.0.0.1:{port}"


def test_url_is_read(tmp_path: Path, store: ArtifactStore, web: str) -> None:
    path = write(tmp_path, "rows.csv")
    assert read(f"{web}/rows.csv?download=1", store) == read(path, store)
    message = refused(f"{web}/gone.csv", store)
    assert f"data.train: cannot fetch {web}/gone.csv" in message
    assert "give its path with --set data.train=PATH" in message


DEAD = "127.0.0.1:9"  # where nobody answers
SIGNED = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAhush%2F20310501&X-Amz-Date=20310501T000000Z"
    "&X-Amz-Signature=5ec2e7hush&X-Amz-Security-Token=IQoJhush/hush%3D",
    "AWSAccessKeyId=AKIAhush&Signature=ab/hush%3D&Expires=1893456000",
    "sv=2031-01-01&st=2031-05-01&se=2031-05-02&sp=r&sig=hush%2Fhush%3D",
    "access_token=hush-hush",
    "api_key=hush",
    "token=hush",
)


@pytest.mark.parametrize("query", SIGNED)
def test_a_signed_address_is_read_and_leaves_no_signature(
    tmp_path: Path, store: ArtifactStore, web: str, cache: Path, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    rows = read(write(tmp_path, "rows.csv"), store)
    given = f"{web}/rows.csv?part=2&{query}".replace("http://", "http://me:hush@")
    source = resolve_source(given, store)
    assert read(given, store) == rows
    assert list((cache / "sources").glob("*.csv")) == list(source.files), "fetched once"
    assert source.content == resolve_source(str(tmp_path / "rows.csv"), store).content, "the key is the file's"
    step = plain_step("import", 1, "rows", "one", {"content": source.content, "given": given})
    (tmp_path / "empty").mkdir()
    artifact = store.write(step, tmp_path / "empty", {"source": Path(source.given).name})
    for text in (
        repr(source), str(source), (store.objects.read(f"{artifact.path}/manifest.json") or b"").decode(),
        refused(given.replace("rows.csv", "gone.csv"), store), refused(given.replace("rows.csv", "rows.txt"), store),
        refused(given.replace(web.removeprefix("http://"), DEAD), store), caplog.text,
        *(str(path) + path.read_text() for path in cache.rglob("*") if path.is_file()),
    ):  # fmt: skip
        assert "hush" not in text


OPEN = (
    "pwd", "secretkey", "code", "X%2DAmz%2DSignature", "subscription-key", "jwt", "pass", "auth_key", "secret_key",
    "app_key", "appKey", "sas", "hdnts", "hmac", "password1", "tokens", "session", "sessionid", "ticket", "bearer",
    "dbPass", "next=https%3A%2F%2Fh%2Fy%3Ftoken", "next=https://h/y?token",
)  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        *(f"https://h/x.csv?part=2&{name}=hush" for name in OPEN),
        *(f"https://h/x.csv?part=2&token=ab{end}hush" for end in "')]?"),
        "https://u:p@hush@h/x.csv?part=2", "https://u:hush/p@h/x.csv?part=2", "s3://AKIA:ab/hush@bucket/x.csv?part=2",
    ],
)  # fmt: skip
def test_no_credential_of_an_address_is_shown(given: str) -> None:
    shown = without_credentials(f"cannot open ('{given}'), [{given}]")
    assert "hush" not in shown
    assert shown.count("x.csv") == 2
    assert shown.count("part=2") == 2


def test_addresses_within_addresses_without_end_are_starred() -> None:
    assert "hush" not in without_credentials("https://h" + "?next=https://h" * 5000 + "?token=hush")


def test_an_address_without_a_signature_stays_as_it_is() -> None:
    for given in (
        "https://host/rows.csv",
        "https://host/rows.csv?download=1&st=CA&expires=never",
        "https://host:8080/@user/rows@2.csv?mail=a@b&author=me&passage=1&design=2&country_code=DE&sort_key=a&keyword=k",
        "https://[::1]:80/a@b/rows.csv?url=https%3A%2F%2Fh%2Fy%3Fpart%3D2&max_tokens=5&tokenizer=bpe",
        "hf://datasets/owner/name@revision/rows.csv?v=1",
        "s3://bucket/a@b/rows.csv",
        "s3://bucket/rows.csv",
    ):
        assert without_credentials(given) == given


def test_address_that_nobody_answers_is_told_in_seconds(store: ArtifactStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/rows.csv"
        started = time.monotonic()
        message = refused(url, store)
    assert time.monotonic() - started < 10
    assert f"cannot fetch {url}" in message
    assert "check the address and the network" in message
    assert "give its path with --set data.train=PATH" in message


@pytest.mark.slow
def test_hub_that_does_not_answer_is_told(tmp_path: Path) -> None:
    code = (
        "from reseed.data.sources import *; from reseed.problems import load_problem\n"
        "from reseed.store.artifacts import ArtifactStore\n"
        "store = ArtifactStore('store')\n"
        "try: read_source(resolve_source('owner/name', store), store, load_problem('prompt-recovery'))\n"
        "except ReseedError as error: print(error)"
    )
    away = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **away},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("data.train: no file 'owner/name' here, and the hub cannot be asked"), done.stderr
    assert "check the name and the network, or give a path" in done.stdout


def publish(store: ArtifactStore, folder: Path, ref: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    step = plain_step("publish", 1, "dataset", "rewrites", {"date": ref})
    store.point("dataset", "rewrites", ref, store.write(step, folder))


def test_dataset_version_of_the_store_is_read(tmp_path: Path, store: ArtifactStore) -> None:
    rows = list(as_rows(RECORDS, PROBLEM, "here"))
    publish(store, tmp_path / "a", "2031-05-01", rows[:1])
    publish(store, tmp_path / "b", "latest", rows)
    assert read("rewrites@2031-05-01", store) == rows[:1]
    assert read("rewrites@latest", store) == rows


def test_unknown_version_is_answered_with_those_that_exist(tmp_path: Path, store: ArtifactStore) -> None:
    assert refused("rewrites@latest", store).endswith(
        "has no dataset rewrites@latest; `reseed data list` shows what it has"
    )
    for ref in ("2031-05-02", "2031-05-01"):
        publish(store, tmp_path / ref, ref, list(as_rows(RECORDS, PROBLEM, "here")))
    assert refused("rewrites@latest", store).endswith("of 'rewrites' it has 2031-05-01, 2031-05-02")


def test_version_of_another_problem_is_refused(tmp_path: Path, store: ArtifactStore) -> None:
    publish(store, tmp_path / "a", "latest", [{"id": "1", "question": "q"}])
    assert "rewrites@latest: no column 'original_text'" in refused("rewrites@latest", store)


@pytest.mark.skipif(not (ROOT / REWRITES).is_file(), reason=f"no {REWRITES.as_posix()} beside this repository")
def test_real_rewrites_are_read(store: ArtifactStore) -> None:
    rows = read(str(ROOT / REWRITES), store)
    assert len(rows) == 1148
    assert len({row["rewrite_prompt"] for row in rows}) == 342
    assert all(row["original_text"] for row in rows)


def test_seed_texts_are_lines_each_once(tmp_path: Path) -> None:
    (tmp_path / "passages.txt").write_text("one\n\n  two \none\n")
    settings = GenerationSettings(passages=str(tmp_path / "passages.txt"))
    passages, prompts = seed_texts(settings)
    assert passages == ["one", "two"]
    assert len(prompts) >= 50


def test_seed_text_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("façade".encode("cp1252"))
    with pytest.raises(ReseedError, match=r"generation\.prompts: '.*latin\.txt' is not UTF-8"):
        seed_texts(GenerationSettings(prompts=str(tmp_path / "latin.txt")))
    with pytest.raises(ReseedError, match=r"generation\.passages: no file 'seeds/nothing\.txt' here or in recipes/"):
        seed_texts(GenerationSettings(passages="seeds/nothing.txt"))


def test_text_that_parquet_holds_as_bytes_is_text(tmp_path: Path, store: ArtifactStore) -> None:
    """Some writers store text as binary; str() of bytes would be Python's repr of them."""
    import pyarrow
    from pyarrow import parquet

    def write(name: str, value: bytes) -> str:
        columns = {"original_text": [value], "rewritten_text": ["b"], "rewrite_prompt": ["c"]}
        parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return str(tmp_path / name)

    source = resolve_source(write("rows.parquet", "grün".encode()), store)
    assert [row["original_text"] for row in read_source(source, store, PROBLEM)] == ["grün"]
    with pytest.raises(ReseedError, match="bytes that are no UTF-8 text"):
        list(read_source(resolve_source(write("latin.parquet", "grün".encode("latin-1")), store), store, PROBLEM))
