"""The one exception that means: the user can fix this."""


class UserError(ValueError):
    """A mistake or a circumstance the user can change; the message is one sentence that says what to do next.

    The command line prints it without a traceback and exits with 2.
    """
