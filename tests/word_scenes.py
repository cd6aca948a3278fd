"""The generated scenes with words, from benchmarks/."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from referring_scenes import make_word_scene, write_word_scenes

__all__ = ["make_word_scene", "write_word_scenes"]
