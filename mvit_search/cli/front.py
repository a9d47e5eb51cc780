"""`mvit-search front` and `mvit-search report`: what a run found."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mvit_search.cli.arguments import RESULTS_DIR, JsonOption, ResultsDirOption, RunArgument
from mvit_search.cli.output import print_json, print_table, say


def front(run: RunArgument, results_dir: ResultsDirOption = RESULTS_DIR, json: JsonOption = False) -> None:
    """Print the Pareto front of a run, with the presets beside it."""
    from mvit_search.analysis import read_front_now
    from mvit_search.records import find_run

    document = read_front_now(find_run(run, results_dir))
    if json:
        print_json(document)
    else:
        print_front(document)


def report(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file to write; default: report.html in the run's folder.")
    ] = None,
    results_dir: ResultsDirOption = RESULTS_DIR,
    json: JsonOption = False,
) -> None:
    """Write one self-contained HTML file with the front, to look at or to send on."""
    from mvit_search.analysis import write_report
    from mvit_search.records import find_run

    folder = find_run(run, results_dir)
    path = out or folder.report_file
    write_report(folder, path)
    if json:
        print_json({"files": [str(path)]})
    else:
        say(f"wrote {path}")


def print_front(document: dict[str, Any]) -> None:
    """The front table with the presets beside it, and what the numbers mean."""
    from mvit_search.analysis import baseline_table, front_table, latency_source, read_document, verdict_sentences
    from mvit_search.analysis.proxy_words import proxy_words
    from mvit_search.analysis.run_facts import search_facts

    for title, table in (("Pareto front", front_table(document)), ("presets", baseline_table(document))):
        print_table(title, table.columns, table.rows, left=table.left)
    facts = read_document(document)
    say(f"Latency: {latency_source(facts)}. {proxy_words(facts).note}")
    for fact in search_facts(facts):
        say(f"{fact.label}: {fact.text}.")
    for sentence in verdict_sentences(facts):
        say(sentence)
