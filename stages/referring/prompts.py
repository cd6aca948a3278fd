"""What a task is called in words (UniLSeg, Table 1).

A bare class name clashes with long captions where both are trained, so that "all" is part of the prompt.
"""

from typing import Literal

Task = Literal["ris", "rvos", "semantic", "open-vocabulary", "salient", "part"]
TASKS: tuple[Task, ...] = ("ris", "rvos", "semantic", "open-vocabulary", "salient", "part")
SALIENT = "the most salient object"


def all_of(name: str) -> str:
    """The prompt for every pixel of a class, a part or a tag."""
    return f"all {name}"


def task_prompt(task: Task, name: str = "") -> str:
    """The prompt of a task; `name` is the caption, the class or the part."""
    if task == "salient":
        return SALIENT
    return name if task in ("ris", "rvos") else all_of(name)
