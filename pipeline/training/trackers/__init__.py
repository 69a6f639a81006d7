"""Holds the trackers of trainings, one file each, named as in `train.tracker`.

A file has `class Options(TrackerOptions)` and `open_tracker(options, run) -> Tracker`. No library is imported before a
training begins.
"""
