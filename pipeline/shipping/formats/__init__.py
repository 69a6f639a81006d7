"""Writes students for other programs: every other file here is a format, found by its name.

A format's file has the functions of `pipeline.shipping.format.Format`.
"""
