"""The table of trainings: what is written comes back, and what is broken is named with its line."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from mvit_search.architecture import PRESETS
from mvit_search.errors import InputError
from mvit_search.profile import cost
from mvit_search.records.table import COLUMNS, TableRow, append_rows, read_table, write_table


def table_row(name: str = "mobilevit-xs", **changes) -> TableRow:
    config = PRESETS[name]
    costs = cost(config)
    row = TableRow(
        name=name, digest=config.digest(), seed=0, recipe="ab12", data="cd34", fidelity="long", epoch=2, epochs=4,
        top1=0.1 + 0.2, loss=1.25, image_steps=1000, cpu_seconds=3.5, params=costs.params, macs=costs.macs,
        latency_ms=None, error="", config=config,
    )  # fmt: skip
    return replace(row, **changes)


def failed(**changes) -> TableRow:
    return table_row(top1=None, loss=None, error="loss is nan,\nin epoch 1", epoch=0, **changes)


def test_the_columns_are_the_ones_agreed():
    assert ",".join(COLUMNS) == (
        "name,digest,seed,recipe,data,fidelity,epoch,epochs,top1,loss,image_steps,cpu_seconds,params,macs,"
        "latency_ms,error,score,config"
    )


def test_rows_come_back_to_the_last_bit(tmp_path):
    rows = (table_row(), table_row("mobilevit-s", latency_ms=7.25, seed=3), failed(name="mobilevit-xxs"))
    path = tmp_path / "table.csv"
    write_table(path, rows[:1])
    append_rows(path, rows[1:])
    expected = (*rows[:2], replace(rows[2], error="loss is nan, in epoch 1"))
    assert read_table(path) == expected
    assert path.read_text().count("\n") == 4


def test_a_score_without_a_training_has_a_column_that_a_table_may_lack(tmp_path):
    path = tmp_path / "table.csv"
    scored = table_row(fidelity="zero-cost:synflow", epoch=0, epochs=1, top1=None, loss=None, score=-12.5)
    write_table(path, [scored, table_row()])
    assert read_table(path) == (scored, table_row())
    write_table(path, [table_row()])
    path.write_text(path.read_text().replace(",score,", ",").replace(',,,"{', ',,"{'))
    assert read_table(path) == (table_row(),)


def test_appending_begins_a_file_and_cuts_a_torn_row_off(tmp_path):
    path = tmp_path / "table.csv"
    append_rows(path, [table_row()])
    whole = path.read_bytes()
    for cut in (1, 30, 300):
        path.write_bytes(whole + whole[whole.index(b"\n") + 1 : -cut])
        append_rows(path, [table_row(seed=7)])
        assert [row.seed for row in read_table(path)] == [0, 7]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="its columns are not those"):
        append_rows(path, [table_row()])


def test_a_last_row_without_line_end_is_read_where_it_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [table_row()])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read_table(path) == (table_row(),)


def test_a_config_stands_in_the_first_row_of_its_candidate_alone(tmp_path):
    path = tmp_path / "table.csv"
    rows = [table_row(), table_row(seed=1), table_row(seed=2)]
    write_table(path, rows[:1])
    append_rows(path, rows[1:])
    assert path.read_text().count("stem_channels") == 1
    assert read_table(path) == tuple(rows)
    write_table(tmp_path / "again.csv", read_table(path))
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_columns_in_another_order_and_further_ones(tmp_path):
    path = tmp_path / "table.csv"
    write_table(path, [table_row()])
    with path.open(newline="") as stream:
        (cells,) = csv.DictReader(stream)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*reversed(COLUMNS), "remark"])
        writer.writeheader()
        writer.writerow({**cells, "remark": "kept by hand"})
    assert read_table(path) == (table_row(),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "has no column name, digest"),
        (lambda text: text.partition("\n")[0], "holds no row"),
        (lambda text: text.replace(",top1,", ",accuracy,", 1), "has no column top1"),
        (lambda text: text[:-40], r"line 3: has \d cells for 18 columns; was it cut"),
        (lambda text: "\n".join(text.split("\n")[:2])[:-40], "line 2: is no CSV"),
        (lambda text: "\n".join(text.split("\n")[::2]), "line 2: config: is empty, and no row above has one"),
        (lambda text: text.rstrip("\n") + ",more\n", "line 3: has 19 cells for 18 columns"),
        (lambda text: text.replace("0.30000000000000004", "1.5"), "line 2: top1 1.5|line 2: top1 '1.5'"),
        (lambda text: text.replace("0.30000000000000004", "nan"), "line 2: top1 'nan'"),
        (lambda text: text.replace("0.30000000000000004", ""), "line 2: top1: a row has a top1, or a score or"),
        (lambda text: text.replace("long,2,4", "long,5,4"), "line 2: epoch 5: is above epochs"),
        (lambda text: text.replace("long,2,4", "long,two,4"), "line 2: epoch 'two'"),
        (lambda text: text.replace('""silu""', '""sine""', 1), "line 2: config: activation 'sine'"),
        (lambda text: text.replace('"{""', '"{', 1), "line 2: config: is no JSON"),
        (lambda text: text.replace('""silu""', '""relu""', 1), "line 2: digest .* is not the config's"),
    ],
)  # fmt: skip
def test_broken_tables_are_refused_in_a_line(tmp_path, change, words):
    path = tmp_path / "table.csv"
    write_table(path, [table_row(), table_row(seed=1)])
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(InputError, match=words) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_files_that_are_no_text_are_refused(tmp_path, content):
    path: Path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path)
