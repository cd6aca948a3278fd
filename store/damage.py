"""The one error for everything in a data set that is not as it was written."""

from ..schemas.errors import UserError


class DamageError(UserError):
    """Something in the data set is missing or not as it was written; `trouble` says what is wrong with it.

    The message names the file, and the shard if it belongs to one; `file` is its name within the shard.
    """

    def __init__(self, what: str, trouble: str, advice: str, file: str = "") -> None:
        super().__init__(f"{what} {trouble}: {advice}.")
        self.trouble, self.file = trouble, file
        self._parts = (what, trouble, advice, file)

    def __reduce__(self) -> tuple[type["DamageError"], tuple[str, str, str, str]]:
        return DamageError, self._parts  # it travels from workers to the driver


class ContentError(ValueError):
    """What is wrong with the content of one file, for those who know which file it is."""
