"""What a run says: tables, comparisons with the presets, figures, and the report.

Drawing lives in `figures`, which loads plotly; nothing here does before a report is written, or loads torch.
"""

from mvit_search.analysis.comparison import Comparison, comparisons, seed_noise, verdict, verdict_sentences
from mvit_search.analysis.figure_data import FrontFigureData, ProgressData, front_figure_data, progress_data
from mvit_search.analysis.front_document import FrontDocument, Point, candidate_points, read_document
from mvit_search.analysis.liveness import is_alive, read_front_now
from mvit_search.analysis.report import report_html, write_report
from mvit_search.analysis.stages import STAGE_COLUMNS, StageRow, stage_rows, stage_summary
from mvit_search.analysis.tables import Table, TableRow, baseline_table, front_table, latency_source

__all__ = [
    "STAGE_COLUMNS", "Comparison", "FrontDocument", "FrontFigureData", "Point", "ProgressData", "StageRow",
    "Table", "TableRow", "baseline_table", "candidate_points", "comparisons", "front_figure_data",
    "front_table", "is_alive", "latency_source", "progress_data", "read_document", "read_front_now", "report_html",
    "seed_noise", "stage_rows", "stage_summary", "verdict", "verdict_sentences", "write_report",
]  # fmt: skip
