"""The one exception that means: the user can fix this."""


class UserError(ValueError):
    """A mistake or a circumstance the user can change; the message is one sentence that says what to do next.

    The command line prints it without a traceback and exits with 2.
    """


class TransientError(UserError):
    """One that may be over by itself: tried again before a user is bothered with it."""
