"""Prove on a user's own model, data and settings that a killed run resumes exactly."""

from helpers.check_resume.check import check_resume
from helpers.check_resume.process import ending_on_signals
from helpers.check_resume.report import ResumeCheck

__all__ = ["ResumeCheck", "check_resume", "ending_on_signals"]
