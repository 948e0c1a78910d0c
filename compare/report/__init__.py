"""What a person gets of a comparison: a table on the terminal, a page, a comment for a pull request, files."""

__all__ = ["print_report", "render_again", "write_report", "write_summary"]

from compare.report.files import render_again, write_report, write_summary
from compare.report.table import print_report
