"""The survey sheet: one offline page made from a saved result alone."""

from theodolite.report.page import write_report

__all__ = ["write_report"]
