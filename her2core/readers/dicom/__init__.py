"""DICOM whole-slide microscopy."""
