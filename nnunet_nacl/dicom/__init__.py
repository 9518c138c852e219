"""DICOM: series as scans, and what is delivered of them as objects. Needs the extra ``dicom``."""
