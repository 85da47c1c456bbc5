"""The failures that a caller can do something about.

Failures of a *computation* (no convergence, a singular Jacobian) are result codes beside the value.
The exceptions here are for the two other cases: the request was wrong, or the work was stopped.
"""


class RequestError(ValueError):
    """What was asked for is wrong; the message is one sentence that says how to go on.

    The command line prints the message and ends with exit status 2.
    """

    @property
    def may_succeed(self) -> bool:
        """Whether the same request may, since a file or another process stood in its way.

        Known from the exception that it was raised from.
        """
        return isinstance(self.__cause__, OSError | IncompleteError)


class Interrupted(KeyboardInterrupt):
    """The work was stopped from outside, by a signal or a closed reader.

    A `KeyboardInterrupt`, so that no `except Exception` on the way swallows it. A long run may
    catch it, save what it has, and raise it again with a message that says how to resume. The
    command line prints the message and ends with exit status 3.
    """


class IncompleteError(RuntimeError):
    """The work ended early on its own account and can be resumed; the message says how.

    The command line prints the message and ends with exit status 3.
    """
