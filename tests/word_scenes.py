"""The generated scenes with words, from benchmarks/."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # last: it has a chaos.py, too

from referring_scenes import make_word_scene, write_word_scenes

__all__ = ["make_word_scene", "write_word_scenes"]
