"""Reads DICOM series as scans, and writes results as DICOM objects. Needs the extra ``dicom``."""
