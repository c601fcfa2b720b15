"""Errors a caller can mend: what was expected, what came, which argument, what to do."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input, found before any work starts.

    The message is one line: ``argument: expected ..., got ...; remedy``. The command line prints it and
    exits with 2.
    """

    def __init__(self, argument: str, expected: str, got: str, remedy: str) -> None:
        self.argument = argument
        self.expected = expected
        self.got = got
        self.remedy = remedy
        super().__init__(f"{argument}: expected {expected}, got {got}; {remedy}")


class FieldError(UserError):
    """A function that is not a field: wrong shape, non-finite values, rows that influence each other."""

    def __init__(self, argument: str, expected: str, got: str, remedy: str, example: object = None) -> None:
        super().__init__(argument, expected, got, remedy)
        self.example = example


class MissingCapability(UserError):
    """An algorithm asked a field for something it cannot give."""
