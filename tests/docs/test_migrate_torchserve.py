"""docs/migrate-from-torchserve.md: what its tables send a reader to exists, and archives are told what they are."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import httpx
import pytest
from tests.docs.conftest import Typed
from tests.docs.markdown import prose
from tests.docs.tables import flags, metrics_of, our_flags, quoted, tables, toml_keys
from tests.support.serving import RunningServer

from tensorquay.config.effective import DEFAULT_MAX_BATCH_SIZE
from tensorquay.config.server import ServerConfig

PAGE = "docs/migrate-from-torchserve.md"


def test_properties_become_flags_and_keys_that_are_there() -> None:
    (table,) = tables(PAGE, "config.properties")
    (managing,) = tables(PAGE, "Managing models")
    for row in (*table, *managing):
        assert flags(row[1]) <= our_flags(), row
        assert {name for name in quoted(row[1]) if re.fullmatch(r"[a-z]+\.[a-z_.]+", name)} - {
            "config.toml"
        } <= toml_keys()
    for flag, told in re.findall(r"`--([a-z-]+)` \((\d+)\)", "".join(row[1] for row in table)):
        assert ServerConfig.model_fields[flag.replace("-", "_")].default == int(told)
    said = {row[0]: row[1] for row in table}
    assert said["`batch_size` of a model"].startswith(f"`max_batch_size`; default: {DEFAULT_MAX_BATCH_SIZE},")
    (limit,) = re.findall(r"--http-max-input-size` \((\d+) MiB\)", said["`max_request_size`, `max_response_size`"])
    assert ServerConfig.model_fields["http_max_input_size"].default == int(limit) * 2**20


def test_metrics_become_metrics_that_are_there(server: RunningServer) -> None:
    (table,) = tables(PAGE, "Metrics")
    named = {name for row in table for name in quoted(row[1]) if "_" in name}
    assert len(named) >= 7
    assert named <= metrics_of(server)


@pytest.mark.parametrize(
    ("verb", "path", "instead"),
    [
        ("POST", "/predictions/digits", "POST /v2/models/NAME/infer"),
        ("PUT", "/predictions/digits/2.0", "POST /v2/models/NAME/infer"),
        ("POST", "/explanations/digits", "explains no predictions"),
        ("GET", "/ping", "GET /v2/health/ready"),
        ("GET", "/models", "POST /v2/repository/index"),
        ("POST", "/models?url=digits.mar", "POST /v2/repository/index"),
        ("DELETE", "/models/digits/2.0", "POST /v2/repository/models/NAME/load"),
    ],
)
def test_its_paths_are_404_with_what_to_call_instead(server: RunningServer, verb: str, path: str, instead: str) -> None:
    answer = httpx.request(verb, server.url + path)
    assert answer.status_code == 404
    assert instead in answer.json()["error"]
    assert PAGE in answer.json()["error"]


def test_every_path_of_ours_that_it_names_is_one(server: RunningServer) -> None:
    for verb, path in set(re.findall(r"(GET|POST) (/v2/[\w/]+)", prose(PAGE))):
        answer = httpx.request(verb, server.url + path.replace("/M", "/digits"))
        assert answer.status_code != 405, f"{verb} {path}"
        assert answer.text != '{"error":"Not Found"}', f"{verb} {path}"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "digits.mar"
    said = {"model": {"modelName": "digits", "serializedFile": "digits.pt", "handler": "image_classifier"}}
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("digits.pt", b"weights")
        made.writestr("MAR-INF/MANIFEST.json", json.dumps(said))
    return path


def test_an_archive_that_is_imported_is_told_what_to_do(archive: Path, typed: Typed) -> None:
    code, said = typed("import", archive, "--name", "digits", "--dry-run", "--progress", "none")
    assert code == 3
    for told in ("is a TorchServe archive", "MAR-INF/MANIFEST.json", "handler"):
        assert told in said


def test_an_archive_that_is_dropped_is_told_what_to_do(archive: Path, tmp_path: Path, typed: Typed) -> None:
    version = tmp_path / "models" / "digits" / "1"
    version.mkdir(parents=True)
    archive.rename(version / "digits.mar")
    code, said = typed("check", tmp_path / "models")
    assert code == 1
    assert "found digits.mar, a TorchServe archive: unzip it" in said
