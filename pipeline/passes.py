"""The annotation engine in passes: one step at a time, from data set to data set, where its models fit no one device.

Each pass is a job of its own, which plans, resumes and is verified like any other, with the one before as its parent.
"""

from ..schemas.labels.annotate import AnnotateConfig, Step


def in_passes(config: AnnotateConfig, out: str) -> list[tuple[AnnotateConfig, str]]:
    """The configuration and the data set of each pass; the last one's is `out`, the others lie beside it.

    A step that has no model is none: there is no pass for it.
    """
    steps = [step for step in config.annotate.doing if _has_model(config, step)]
    found = []
    for number, step in enumerate(steps):
        engine = config.annotate.model_copy(update={"steps": (step,)})
        place = out if step == steps[-1] else f"{out.rstrip('/')}-{number + 1}-{step}"
        found.append((config.model_copy(update={"annotate": engine}), place))
    return found


def _has_model(config: AnnotateConfig, step: Step) -> bool:
    roles = config.roles
    return not (step == "match" and not roles.matcher) and not (step == "caption" and not roles.captioner)
