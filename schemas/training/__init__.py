"""Configuration of training: one file for each recipe or model, `registry.py` names them."""
