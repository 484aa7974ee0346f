"""Prepared sets as fixtures."""

from prepared_sets import copied, cut_records, prepared, sound, tracks

__all__ = ["copied", "cut_records", "prepared", "sound", "tracks"]
