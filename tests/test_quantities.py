import pytest

from mvit_search import _quantities as q
from mvit_search.errors import InputError


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (q.parse_count, "6M", 6_000_000), (q.parse_count, "1.2g", 1_200_000_000), (q.parse_count, "2500000", 2_500_000),
        (q.parse_count, " 500 k ", 500_000),
        (q.parse_milliseconds, "5ms", 5.0), (q.parse_milliseconds, "7.5", 7.5), (q.parse_seconds, "30m", 1800.0),
        (q.parse_seconds, "1.5h", 5400.0),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(parse, text, value):
    assert parse(text, "--x") == value


@pytest.mark.parametrize("text", ["", "six", "0", "-6M", "6X", "1e400", "nan", "inf", "6 M M", "0.1"])
def test_a_bad_count_names_field_value_and_remedy(text):
    with pytest.raises(InputError, match=r"^--budget .*; write it like 6M or 2500000$"):
        q.parse_count(text, "--budget")


@pytest.mark.parametrize(
    ("number", "text"), [(1_272_024, "1.27M"), (2.0e9, "2.00G"), (999_999, "1.00M"), (407_364_096, "407M"), (7, "7")]
)
def test_counts_are_short(number, text):
    assert q.format_count(number) == text


def test_bytes_and_seconds_are_short():
    assert q.format_bytes(4 * 2**20) == "4.00 MiB"
    assert q.format_seconds(95) == "1m35s"
    assert q.format_seconds(7265) == "2h01m"
