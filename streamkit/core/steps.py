"""How a producer says that it will not stream after all.

Rule: it passes through every engine as an error before the commit does, and ends at whoever
served the description; nobody is told of it as of a failure.
"""

from __future__ import annotations


class StepAside(BaseException):
    """Here is the response; there will be no stream. Never leaves the package."""

    def __init__(self, response: object) -> None:
        super().__init__(response)
        self.response = response
