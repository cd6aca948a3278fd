"""Exit codes of all commands. 2 is a UserError, which `main` prints."""

DONE = 0  # all done, or stopped where the command itself asked for it (--max-steps, drain)
FOUND_WORSE = 1  # a check found what it looks for: damage, a drift beyond the bound
SET_ASIDE = 3  # done, but some images could not be used
INTERRUPTED = 130  # a signal; the same command goes on
