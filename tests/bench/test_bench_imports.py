"""The bench of imports: its rows and tables from made-up results, and what happens where no framework is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.bench import import_models, import_report, imports
from tests.bench.import_models import MODELS, Model
from tests.bench.imports import main, row
from tests.bench.report import replaced

from tensorquay_convert.job import SourceKind

PAGE = Path(__file__).parents[2] / "docs/performance.md"


def result(**proof) -> dict:
    return {
        "result": "imported", "shown": "an exported program", "exporter": "torch.onnx 2", "seconds": 12.34,
        "peak_rss_bytes": 300 << 20, "proof": {"seconds": 1.5, "cases": 12, "max_absolute": 2.384e-07, **proof},
    }  # fmt: skip


def document() -> dict:
    return {
        "environment": {
            "when": "2030-01-01T00:00:00+00:00", "cpu": "Some CPU", "cores": 2, "budget": "2 threads",
            "system": "Linux 6", "python": "3.11.7", "packages": {"torch": "2.1", "jax": "absent"},
            "load_average_before": [0.1], "stolen_percent": 0.5,
        },
        "rows": [
            row("pt2", "net, 9 parameters", result()),
            row("onnx", "net", result(max_absolute=0.0)),
            row("keras", "net", {"result": "failed", "sentence": "no such operator"}),
            {"name": "jax-factory", "skipped": "jax is not installed: pip install 'tensorquay[jax]'"},
        ],
    }  # fmt: skip


def test_every_kind_of_source_is_measured():
    kinds = {kind.value for kind in SourceKind}
    assert kinds - set(MODELS) == set()
    assert set(MODELS) - kinds == {"module", "h5", "tflite-int8"}


def test_the_table_has_what_was_imported_and_says_what_was_not():
    assert import_report.rows(document()) == [
        ["pt2", "net, 9 parameters", "torch.onnx 2", "12.3", "300", "12", "2.4e-07"],
        ["onnx", "net", "torch.onnx 2", "12.3", "300", "12", "0"],
    ]
    text = import_report.markdown(document())
    assert "| pt2 | net, 9 parameters | torch.onnx 2 | 12.3 | 300 | 12 | 2.4e-07 |" in text
    assert "- `keras`: failed: no such operator\n- `jax-factory`: skipped: jax is not installed" in text
    assert "Python 3.11.7, torch 2.1." in text
    console = Console(width=200)
    with console.capture() as shown:
        console.print(import_report.table(document()))
    assert shown.get().splitlines()[1].split() == [
        "pt2", "net,", "9", "parameters", "torch.onnx", "2", "12.3", "300", "12", "2.4e-07",
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), ("inf", "inf"), (0.0, "0"), (1.26e-6, "1.3e-06")])
def test_an_error_is_two_digits_or_what_it_is_instead(value, shown):
    assert import_report.error(value) == shown


def test_nothing_is_left_out_of_a_table_that_is_whole():
    whole = document() | {"rows": document()["rows"][:2]}
    assert "Not in the table" not in import_report.markdown(whole)


def test_the_page_has_the_place_for_the_table():
    assert "largest error" in replaced(
        PAGE.read_text(), import_report.markdown(document()), import_report.BEGIN, import_report.END
    )


def test_large_models_are_counted_in_millions():
    assert import_models._count(22_713_216) == "22.7 million parameters"
    assert import_models._count(2762, "nodes") == "2,762 nodes"


def test_what_is_not_installed_is_skipped_with_what_would_help(monkeypatch, tmp_path, capsys):
    missing = Model("torch", import_models._pt2, ("json", "no_such_framework"), "torch")
    monkeypatch.setattr(imports, "MODELS", {"pt2": missing})
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text(f"before\n{import_report.BEGIN}\nold\n{import_report.END}\nafter\n")
    assert main(["--only=pt2", f"--markdown={page}", f"--json={figures}"]) == 0
    why = "no_such_framework is not installed: pip install 'tensorquay[torch]'"
    assert json.loads(figures.read_text())["rows"] == [{"name": "pt2", "skipped": why}]
    assert why in page.read_text()
    assert "old" not in page.read_text()
    seen = capsys.readouterr()
    assert f"pt2: skipped, {why}\n" in seen.err
    assert f"pt2: skipped: {why}\n" in seen.out


def test_the_shipped_model_is_imported_for_real(tmp_path, capsys):
    figures = tmp_path / "figures.json"
    assert main(["--only=onnx", f"--json={figures}"]) == 0
    (found,) = json.loads(figures.read_text())["rows"]
    assert found["name"] == "onnx"
    assert found["max_absolute"] == 0
    assert found["cases"] >= 5
    assert found["seconds"] > 0
    assert found["peak_bytes"] > 10 << 20
    assert "the shipped digits" in capsys.readouterr().out


def test_a_model_that_cannot_be_made_ends_the_bench(monkeypatch, capsys):
    monkeypatch.setattr(imports, "ROOT", Path("/"))
    assert main(["--only=onnx"]) == 1
    assert "bench: --make onnx: ended with 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--only=onnx,oonx"], "--only: expected some of pt2"), (["--markdown=/nowhere.md"], "--markdown: ")],
)
def test_what_is_asked_wrongly_is_said_before_anything_is_measured(arguments, words, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err


def test_a_page_without_the_place_is_refused_at_once(tmp_path, capsys):
    (tmp_path / "page.md").write_text("nothing\n")
    with pytest.raises(SystemExit):
        main([f"--markdown={tmp_path / 'page.md'}"])
    assert "once, in this order" in capsys.readouterr().err
