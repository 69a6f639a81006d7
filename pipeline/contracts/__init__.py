"""Tries what every plug-in of a kind must keep on one plug-in: the command `contract`, and the suites in the tests."""
