"""The whole bench once, with so few requests that the figures mean nothing: every part must fit the others."""

from __future__ import annotations

import json

import pytest
from tests.bench.__main__ import main
from tests.bench.report import BEGIN, END


@pytest.mark.long
def test_a_quick_run_measures_and_writes_everything(tmp_path, capsys):
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    assert main(["--quick", "--only=simple", f"--json={figures}", f"--markdown={page}"]) == 0, capsys.readouterr().err
    document = json.loads(figures.read_text())
    (model,) = document["models"]
    assert [door["door"] for door in model["doors"]] == ["http binary", "grpc", "http json"]
    assert [door["in_flight"] for door in (*model["doors"], *model["single"])] == [64] * 3 + [1] * 3
    assert all(door["requests"] > 0 and door["of_raw"]["median"] > 0 for door in model["doors"])
    assert [floor["door"] for floor in document["floors"]] == ["http health", "grpc health"]
    assert model["peak_bytes"] >= model["resident_bytes_before"] > 0
    assert "| simple | http binary | 64 |" in page.read_text()
    assert "served / raw" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--only=nothing"], ["--doors=window"], ["--rounds=x"]])
def test_wrong_arguments_are_refused_before_anything_runs(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "usage:" in capsys.readouterr().err
