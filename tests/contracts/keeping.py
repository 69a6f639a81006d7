"""Tries all checks of a contract in one test: pytest takes longer to begin a test than most checks take."""

from __future__ import annotations

from collections.abc import Collection

from cases import all_cases

from pipeline.contracts.checks import NotTried, checks_of


def require_kept(contract: object, not_tried: Collection[str] = ()) -> None:
    """What `pipeline contract` tries holds; each check that fails is named.

    Args:
        contract: of one plug-in.
        not_tried: the checks that may say that they cannot be tried here.
    """
    checks = checks_of(type(contract))
    assert checks
    with all_cases() as case:
        for check in checks:
            with case(check=check):
                try:
                    getattr(contract, check)()
                except NotTried:
                    if check not in not_tried:
                        raise
