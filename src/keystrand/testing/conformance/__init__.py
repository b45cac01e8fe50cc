"""Conformance with ETSI GS QKD 014 V1.1.1 of any pair of KMEs that two SAEs can reach."""

from keystrand.testing.conformance.report import Outcome, Report, report_table
from keystrand.testing.conformance.suite import run
from keystrand.testing.conformance.target import Caller, Target

__all__ = ["Caller", "Outcome", "Report", "Target", "report_table", "run"]
