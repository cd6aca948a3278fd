"""`review`: a local page on which people accept, reject and tag."""

from .options import AllowHost, DatasetUrl, Host, Port, Verdicts, tell_address


def review(
    dataset: DatasetUrl,
    verdicts: Verdicts = None,
    port: Port = 8000,
    host: Host = "127.0.0.1",
    allow_host: AllowHost = None,
) -> None:
    """Open a page to look through a data set: keys accept, reject and tag masks and images.

    Verdicts go into a file beside the data set, which itself is not changed; `export --reviewed`, `dataset filter
    --reviewed` and the reader (`reviewed=True`) heed them.
    """
    from ..pipeline.review.reviewer import Reviewer
    from ..pipeline.review.server import serve
    from ..store.dataset import Dataset
    from ..store.verdicts import VerdictFile, verdicts_path

    opened = Dataset.open(dataset)
    seal = opened.sealed
    file = VerdictFile(verdicts_path(opened, verdicts), None if seal is None else seal.root_hash)
    serve(Reviewer(opened, file), host, port, tell_address, allow_host or [])
